"""`obcd simulate` and `obcd embedded`: servers that speak Ollama's API where there is no Ollama."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from obcd.errors import ExitCode, UsageError
from obcd.parent_death import tie_to_parent
from obcd.standins.embedded.llama_cpp import EmbeddedEngine, EmbeddedOptions, default_name
from obcd.standins.serve import Site, serve
from obcd.standins.simulated.faults import KINDS, parse_rate
from obcd.standins.simulated.gpu_server import VRAM_SHARES, Behaviour
from obcd.standins.simulated.prefix_cache import PrefixCaching
from obcd.standins.sites import embedded_site, simulated_sites
from obcd.standins.wire.account import AccountFile
from obcd.standins.wire.request_values import tagged_name
from obcd.standins.wire.settings import settings_from

SIMULATE_EPILOG = """\b
Examples:
  obcd simulate --count 28 --parallel 16 --port 11432
  obcd simulate --seconds 1.0 --seconds-spread 0.5
  obcd simulate --fault crash=0.01 --fault status=503=0.05
  obcd simulate --models llama3.2,nomic-embed-text --size-vram cpu
  obcd simulate --parallel 4 --prefix-cache slots --prompt-tokens-per-second 250

\b
A prompt can also request a fault: [[simulate:crash]], [[simulate:status=503]],
[[simulate:hang*2]] (only the first 2 times that this prompt is sent).
Kinds of faults:
{kinds}

\b
GET /simulated/requests and /simulated/slots return what happened, the first one also how many
tokens of each prompt were evaluated and how many came from the cache; DELETE resets them.
Ollama's variables work too: OLLAMA_HOST, OLLAMA_NUM_PARALLEL, OLLAMA_MAX_QUEUE,
OLLAMA_KEEP_ALIVE, OLLAMA_CONTEXT_LENGTH.
""".format(kinds="\n".join(f"  {kind:<15} {text}" for kind, text in KINDS.items()))


@click.command(epilog=SIMULATE_EPILOG)
@click.option(
    "--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="number of servers, one per port"
)
@click.option("--host", help="address to listen on  [default: OLLAMA_HOST or 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="first port; 0 takes free ones  [default: OLLAMA_HOST or 0]"
)
@click.option("--parallel", type=click.IntRange(1), help="slots of each server  [default: OLLAMA_NUM_PARALLEL or 1]")
@click.option("--context", type=click.IntRange(4), help="context in tokens  [default: OLLAMA_CONTEXT_LENGTH or 4096]")
@click.option(
    "--models",
    default="llama3.2",
    show_default=True,
    help="installed models, separated by commas; '' for none. As in Ollama's library, llava sees pictures, qwen3 "
    "thinks, codellama fills a gap, nomic-embed-text embeds, gemma:2b knows no tools",
)
@click.option(
    "--seconds", type=click.FloatRange(0), help="seconds of each request in its slot  [default: from its tokens]"
)
@click.option(
    "--seconds-spread",
    type=click.FloatRange(0, 3),
    default=0.0,
    show_default=True,
    help="sigma of a lognormal spread of time and length, by prompt",
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="speed of a single request",
)
@click.option(
    "--slowdown",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="how much each further busy slot slows the others: 0 not at all, 1 as much as if there were one slot",
)
@click.option(
    "--prompt-tokens-per-second",
    type=click.FloatRange(1),
    default=2000.0,
    show_default=True,
    help="speed of reading a prompt",
)
@click.option(
    "--prefix-cache",
    type=click.Choice([str(kind) for kind in PrefixCaching]),
    default=str(PrefixCaching.OFF),
    show_default=True,
    help="prompts that the server remembers, so that it evaluates only the rest of one that begins alike: slots, the "
    "last one of each slot, as Ollama v0.24; memory, earlier ones too, in 8 GiB of the host's memory, as v0.33.3, and "
    "replies say how much came from there. It changes no time where --seconds fixes it",
)
@click.option(
    "--answer-tokens", type=click.IntRange(1), default=64, show_default=True, help="median length of an answer"
)
@click.option(
    "--load-seconds", type=click.FloatRange(0), default=0.5, show_default=True, help="seconds to load a model"
)
@click.option(
    "--overhead-seconds",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="most seconds of a request in its slot that no counter of the reply holds; Ollama v0.24 has up to 0.11",
)
@click.option(
    "--start-seconds",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="seconds after the start in which requests are accepted and not answered",
)
@click.option("--preload/--no-preload", default=False, show_default=True, help="load the first model at the start")
@click.option(
    "--size-vram",
    type=click.Choice(list(VRAM_SHARES)),
    default="full",
    show_default=True,
    help="share of the model that /api/ps shows on the GPU",
)
@click.option(
    "--most-context",
    type=click.IntRange(4),
    default=None,
    help="context in tokens that fits into its memory: a larger one is lowered to it  [default: any fits]",
)
@click.option(
    "--weights",
    default="",
    metavar="WORD",
    help="another word gives the models other digests, as if from another pull  [default: empty]",
)
@click.option(
    "--pull-seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="seconds to pull a model"
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=RATE",
    help="make a share of all requests fail in this way  [default: none]",
)
@click.option(
    "--account",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="OBCD_SIMULATE_ACCOUNT",
    show_envvar=True,
    metavar="FILE",
    help="append each arrival and end of a request to this file at once, so that a kill loses none  [default: none]",
)
def simulate(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    count: int, host: str | None, port: int | None, parallel: int | None, context: int | None, models: str,
    seconds: float | None, seconds_spread: float, tokens_per_second: float, slowdown: float,
    prompt_tokens_per_second: float, prefix_cache: str, answer_tokens: int, load_seconds: float,
    overhead_seconds: float, start_seconds: float, preload: bool, size_vram: str, most_context: int | None,
    weights: str, pull_seconds: float, faults: tuple[str, ...], account: Path | None,
) -> None:  # fmt: skip
    """run simulated Ollama servers.

    Each server simulates a GPU and answers with made-up words, to rehearse a configuration and for tests. The command
    prints a line for each server when it listens; SIGTERM ends it.
    """
    settings = settings_from(os.environ, host=host, port=port, parallel=parallel, context=context)
    if settings.port and settings.port + count > 65536:
        raise UsageError(f"--count {count} servers do not fit above port {settings.port}; choose a lower --port.")
    behaviour = Behaviour(
        seconds=seconds,
        spread=seconds_spread,
        tokens_per_second=tokens_per_second,
        prompt_tokens_per_second=prompt_tokens_per_second,
        prefix_cache=PrefixCaching(prefix_cache),
        slowdown=slowdown,
        answer_tokens=answer_tokens,
        load_seconds=load_seconds,
        overhead=overhead_seconds,
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        size_vram=size_vram,
        most_context=most_context or 0,
        weights=weights,
        pull_seconds=pull_seconds,
        faults=tuple(parse_rate(text) for text in faults),
    )
    tie_to_parent(os.environ)
    file = _open_account(account) if account is not None else None
    sites = simulated_sites(count, settings, behaviour, preload=preload, start_seconds=start_seconds, file=file)
    asyncio.run(serve(sites, _announce))


def _open_account(path: Path) -> AccountFile:
    try:
        return AccountFile(path)
    except OSError as error:
        raise UsageError(f"--account {path} cannot be written: {error.strerror}") from None


EMBEDDED_EPILOG = """\b
Examples:
  obcd embedded --model SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2:135m --port 11434
  OLLAMA_HOST=127.0.0.1:11435 OLLAMA_NUM_PARALLEL=4 obcd embedded --model qwen3-0.6b.gguf

\b
Needs: pip install 'obcd[embedded]'. Ollama's variables work too: OLLAMA_HOST,
OLLAMA_NUM_PARALLEL, OLLAMA_MAX_QUEUE, OLLAMA_KEEP_ALIVE, OLLAMA_CONTEXT_LENGTH.
"""


@click.command(epilog=EMBEDDED_EPILOG)
@click.option("--model", required=True, type=click.Path(path_type=Path), help="GGUF file with the weights")
@click.option("--name", help="name of the model for clients  [default: from the file name]")
@click.option("--host", help="address to listen on  [default: OLLAMA_HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="port; 0 takes a free one  [default: OLLAMA_HOST or 0]")
@click.option("--parallel", type=click.IntRange(1, 64), help="slots  [default: OLLAMA_NUM_PARALLEL or 1]")
@click.option(
    "--threads", type=click.IntRange(1), help="threads that compute  [default: the number of cores it may use]"
)
@click.option("--context", type=click.IntRange(4), help="context in tokens  [default: OLLAMA_CONTEXT_LENGTH or 4096]")
@click.option("--preload/--no-preload", default=False, show_default=True, help="load the model at the start")
@click.option("--verbose", is_flag=True, help="show llama.cpp's own log")
def embedded(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    model: Path, name: str | None, host: str | None, port: int | None, parallel: int | None, threads: int | None,
    context: int | None, preload: bool, verbose: bool,
) -> None:  # fmt: skip
    """run a server with real inference on the CPU.

    It is llama.cpp behind Ollama's API. It prints its address when it listens; SIGTERM ends it at once.
    """
    settings = settings_from(os.environ, host=host, port=port, parallel=parallel, context=context)
    options = EmbeddedOptions(
        model=model,
        name=tagged_name(name or default_name(model)),
        parallel=settings.limits.parallel,
        threads=threads or len(os.sched_getaffinity(0)),
        verbose=verbose,
    )
    tie_to_parent(os.environ)
    engine = EmbeddedEngine(options)
    asyncio.run(_serve_and_end(embedded_site(engine, settings, options.name if preload else None)))


async def _serve_and_end(site: Site) -> None:
    """Serve, then end the process here: a thread inside llama.cpp cannot be interrupted, and a stop must not wait."""
    await serve([site], _announce)
    os._exit(ExitCode.DONE)


def _announce(line: str) -> None:
    click.echo(line)
