"""`obcd completion` prints a shell's completion script, and `answer_shell` is what that script calls at each Tab.

    Tab ─► the shell's script ─► _OBCD_COMPLETE=bash_complete obcd ─► answer_shell ─► a line for each word that fits

A person waits for it: names of jobs, profiles and endpoints come from status.json and the configuration's TOML, without
the models of the configuration and without the module of the command, which take four times as long to import.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from obcd.config.places import usual_configuration, usual_root
from obcd.coordinator.view import JobState, View
from obcd.install.completion import PLACES, PROGRAM, VARIABLE, script
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places

#: Most published jobs that are offered.
MOST_JOBS = 200

EPILOG = """\b
Examples:
  source <(obcd completion bash)                                   this shell
  obcd completion bash > ~/.local/share/bash-completion/completions/obcd
  obcd completion zsh > ~/.zfunc/_obcd          with fpath+=~/.zfunc before compinit
  obcd completion fish > ~/.config/fish/completions/obcd.fish

\b
It completes commands, options, files, profiles, jobs and endpoints.
`obcd install` puts all three scripts in place for everybody.
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(list(PLACES)))
def completion(shell: str) -> None:
    """print the script that completes obcd's words in a shell."""
    click.echo(script(shell), nl=False)


def answer_shell(cli: click.Command, wanted: str) -> int:
    """Print the words that fit what stands in the command line so far; never anything else.

    Args:
        wanted: E.g. `bash_complete`.

    Returns:
        The exit code, 0; 1 for a shell that is not known.
    """
    shell, _, instruction = wanted.partition("_")
    kind = get_completion_class(shell)
    if kind is None or instruction != "complete":
        return 1
    with contextlib.suppress(Exception):  # an error message would end up in the middle of the command line
        shown = kind(cli, {}, PROGRAM, VARIABLE)
        args, incomplete, head = _join(*shown.get_completion_args())
        items = find_words(cli, args, incomplete)
        if shell == "bash":
            items = [_as_bash_inserts(item, head) for item in items]
        click.echo("\n".join(shown.format_completion(item) for item in items))
    return 0


def _join(args: list[str], incomplete: str) -> tuple[list[str], str, str]:
    """Undo what bash does to `--config=x` and `gpu1:11432`: it makes three words of each (COMP_WORDBREAKS).

    Returns:
        The whole words, the incomplete one, and the head of that one that bash takes for an earlier word.
    """
    words, head = [word for word in args if word != "="], ""
    if incomplete == "=":
        return words, "", ""
    if incomplete == ":" and words:
        head, incomplete = f"{words.pop()}:", ""
    elif words[-1:] == [":"] and len(words) > 1:
        head = f"{words[-2]}:"
        del words[-2:]
    return words, head + incomplete, head


def _as_bash_inserts(item: CompletionItem, head: str) -> CompletionItem:
    """Return a word without the head that stands there already, and quoted, because bash inserts it as it is."""
    if item.type != "plain":
        return item
    return CompletionItem(shlex.quote(item.value.removeprefix(head)), help=item.help)


def find_words(cli: click.Command, args: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """Return what may stand in place of an incomplete word.

    Args:
        args: The whole words before it, without `obcd`, e.g. `["cancel", "--root", "/srv/obcd"]`.
    """
    option, command = args[-1] if args else "", args[0] if args else ""
    if option in OPTION_WORDS:
        return OPTION_WORDS[option](_Place(args), incomplete)
    is_argument = command in ARGUMENT_WORDS and not incomplete.startswith("-")
    if is_argument and not option.startswith("-"):
        is_full = command == "priority" and len(_positional(args)) > 1  # its second argument is a number
        return [] if is_full else ARGUMENT_WORDS[command](_Place(args), incomplete)
    found = _resolve(cli, args)
    taken = _option_of(found, option)
    if taken is not None and not taken.is_flag:
        form = {"FILE": "file", "DIR": "dir"}.get(taken.metavar or "")
        if form is not None:
            return [CompletionItem(incomplete, type=form)]
    elif is_argument:
        return ARGUMENT_WORDS[command](_Place(args), incomplete)
    kind = get_completion_class("bash")
    assert kind is not None
    return kind(cli, {}, PROGRAM, VARIABLE).get_completions(list(args), incomplete)


class _Place:
    """The configuration and the spool that a command line means; each is looked for when it is needed."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = args

    def document(self) -> dict[str, Any]:
        """Return the configuration as it is written, unchecked."""
        named = self._named("--config") or os.environ.get("OBCD_CONFIG")
        path = Path(named).expanduser() if named else usual_configuration()
        return tomllib.loads(path.read_text("utf-8-sig")) if path is not None else {}

    def layout(self) -> Layout:
        """Return the spool's folders; a configuration that cannot be read is as none."""
        spool: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            spool = self.document().get("spool", {})
        named = self._named("--root") or os.environ.get("OBCD_ROOT") or spool.get("root")
        root = Path(named).expanduser().absolute() if named else usual_root()
        assert root is not None
        return Layout.at(root, spool.get("inbox"), per_user=bool(spool.get("per_user")))

    def _named(self, option: str) -> str:
        pairs = zip(self._args, (*self._args[1:], ""), strict=True)
        values = [value for word, value in pairs if word == option]
        values += [word.partition("=")[2] for word in self._args if word.startswith(f"{option}=")]
        return values[-1] if values else ""


def _fitting(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the words that begin so and can stand in a command line as they are, each once, in their order."""
    return [CompletionItem(word) for word in dict.fromkeys(words) if word.startswith(incomplete) and word.isprintable()]


def _profiles(place: _Place, incomplete: str) -> list[CompletionItem]:
    return _fitting(place.document().get("profiles", {}), incomplete)


def _endpoints(place: _Place, incomplete: str) -> list[CompletionItem]:
    return _fitting(place.document().get("ollama_instances", {}), incomplete)


def _unfinished(*states: JobState) -> Callable[[_Place, str], list[CompletionItem]]:
    """Return what finds the jobs in these states, by the names they were dropped with, else by their ids."""

    def find(place: _Place, incomplete: str) -> list[CompletionItem]:
        view = View.from_json(disk.read_json(place.layout().status))
        jobs = [job for job in view.all_jobs if job.state in states]
        names = [f"{job.profile}/{job.name}" if job.profile else job.name for job in jobs]
        return _fitting(names, incomplete) or _fitting((job.job for job in jobs), incomplete)

    return find


def _published(place: _Place, incomplete: str) -> list[CompletionItem]:
    """Return the published jobs that have failed lines, the newest first, by their path in the outbox."""
    if incomplete.startswith(("/", ".", "~")):
        return [CompletionItem(incomplete, type="dir")]
    homes = find_places(place.layout().outbox, os.geteuid(), "")
    found = [(path, home) for home in homes for form in ("*", "*/*") for path in home.glob(f"{form}/retry.jsonl")]
    newest = sorted(found, key=lambda pair: -pair[0].stat().st_mtime)[:MOST_JOBS]
    return _fitting((str(path.parent.relative_to(home)) for path, home in newest), incomplete)


def _folders_and_jobs(place: _Place, incomplete: str) -> list[CompletionItem]:
    """Return the folders that begin so, and the jobs that are not published."""
    jobs: list[CompletionItem] = []
    with contextlib.suppress(OSError, ValueError):  # no coordinator runs
        jobs = _unfinished(*JobState)(place, incomplete)
    return [*jobs, *_folders(place, incomplete)]


def _files(_: _Place, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _folders(_: _Place, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


Words = Callable[[_Place, str], list[CompletionItem]]
#: {option, the same in every command that has it: what finds its values}
OPTION_WORDS: dict[str, Words] = {"--profile": _profiles, "--config": _files, "--root": _folders}
_going, _still = (JobState.ACCEPTED, JobState.RUNNING), (JobState.PAUSED,)
#: {command: what finds its arguments}
ARGUMENT_WORDS: dict[str, Words] = {
    "cancel": _unfinished(*_going, *_still),
    "pause": _unfinished(*_going),
    "resume": _unfinished(*_still),
    "priority": _unfinished(*_going, *_still),
    "try": _files,
    "status": _unfinished(*JobState),
    "retry": _published,
    "print": _folders_and_jobs,
    "bench": _endpoints,
    "burn-in": _endpoints,
    "prepare": _files,
    "convert": _files,
}


def _positional(args: Sequence[str]) -> list[str]:
    """Return the command and its arguments, without options and the values of those that are known here."""
    valued = {*OPTION_WORDS, "--timeout"}
    before = ("", *args[:-1])
    return [word for word, last in zip(args, before, strict=True) if not word.startswith("-") and last not in valued]


def _resolve(cli: click.Command, args: Sequence[str]) -> click.Command:
    """Return the command that is meant, which may be one of a group in a group."""
    found = cli
    for word in args:
        below = found.get_command(click.Context(found), word) if isinstance(found, click.Group) else None
        if below is None:
            break
        found = below
    return found


def _option_of(command: click.Command, word: str) -> click.Option | None:
    options = (item for item in command.params if isinstance(item, click.Option))
    return next((item for item in options if word in item.opts), None)
