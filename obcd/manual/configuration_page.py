"""The page `configuration.md`: every key of obcd.toml with its description, what it takes, and its default. Pure.

Types, limits and defaults come from the models in `obcd.config`, descriptions from the sample (see
`descriptions`) or, where a model's field has one, from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from obcd.config.descriptions import key_descriptions
from obcd.config.loading import KEYS
from obcd.config.notify_tables import Notifications
from obcd.config.settings import Settings
from obcd.config.tables import NONE, Api, Cluster, Host, Instance, Page, Profile, Requests, Spool
from obcd.config.values import MAX_CONTEXT, MIN_CONTEXT, Table
from obcd.manual.markdown import escape

INTRODUCTION = """\
# Configuration

This page lists every key of `obcd.toml` with its meaning, its type and its default.

obcd reads one file: the one that `--config FILE` names, else the one that `$OBCD_CONFIG` names, else the first of
`/etc/obcd/obcd.toml` and `~/.config/obcd/obcd.toml` that exists. Without `--config`, `obcd batch` and `obcd check`
first look for `config.toml` in the working folder. Without a file the defaults hold. A key that is left out keeps its
default. An unknown key is an error, and every fault is reported with its place, as in `at requests.num_ctx: …`.

- `obcd check`: checks the file and asks the endpoints.
- `obcd check --keys`: lists the keys and their defaults.
- `obcd reload`: lets a running coordinator read the file again; its jobs go on.

Names that end in `_seconds` or `_bytes` hold that unit. `etc/obcd.toml` is a sample that shows every key.
"""
ENDPOINTS = """\
```toml
[ollama_instances]
"127.0.0.1:11434" = 0
"gpu1:11432" = {gpu = 0, slots = 16}
```"""
PROFILE = """\
```toml
[profiles.clinical]
model = "qwen2.5:7b"
schema = "visit.schema.json"
options = {temperature = 0.0}
```"""
#: {table: (its heading, what stands below it before the keys)}
TABLES: dict[str, tuple[str, str]] = {
    "": ("Top level", "The default profile: it holds for files that are dropped into `inbox/` itself."),
    "ollama_instances": ("[ollama_instances]", f"The endpoints, one a line:\n\n{ENDPOINTS}"),
    "requests": ("[requests]", "How every request is sent, unless a profile says otherwise."),
    "host": ("[host]", "The servers of this machine: `obcd host` starts one for each GPU."),
    "cluster": ("[cluster]", "The hosts that register themselves, beside the endpoints of `[ollama_instances]`."),
    "api": ("[api]", "OpenAI's Files and Batches over HTTP: what `obcd api` and the coordinator read."),
    "spool": ("[spool]", "Where files lie, when a file is complete, and how long results are kept."),
    "page": ("[page]", "The status page: `obcd page`."),
    "notify": (
        "[notify]",
        "What is sent when something happens, and where; nothing by default. The page on notifications explains them. "
        "`[profiles.NAME.notify]` takes `events`, `command`, `webhook`, `webhook_secret_file` and `mail_to` for the "
        "jobs of a profile; a key left out is `[notify]`'s, and `webhook = false` means none.",
    ),
    "profiles": (
        "[profiles.NAME]",
        f"What jobs in the folder `inbox/NAME/` use; a key left out comes from the top level.\n\n{PROFILE}",
    ),
}
MODELS: dict[str, type[Table]] = {
    "": Settings,
    "ollama_instances": Instance,
    "requests": Requests,
    "host": Host,
    "cluster": Cluster,
    "api": Api,
    "spool": Spool,
    "page": Page,
    "notify": Notifications,
    "profiles": Profile,
}
#: {key: its type}, where a validator knows more than the JSON Schema of its field does
TYPES = {
    "slots": 'an integer from 1 to 1024, or `"auto"`',
    "num_ctx": f'an integer from {MIN_CONTEXT} to {MAX_CONTEXT}, or `"auto"`',
    "think": "`true`, `false`, or a string",
    "quotes": '`true`, `false`, or `"auto"`',
    "delimiter": "a string of one character",
    "gpus": '`"all"`, `"given"`, `0`, or an array of integers and strings',
}
NAMES = "|".join(sorted(KEYS, key=len, reverse=True))
VALUE = r"\"[^\"]*\"|\[[^\]]*\]|true|false|\d+(?:\.\d+)?"
#: What is code in a description: `true:` at its start, inline tables, keys with or without a value.
CODE = re.compile(rf"^(?:true|false)(?=:)|{{\w+ = [^}}]*}}|(?<![.\w])(?:options\.)?(?:{NAMES})\b(?: = (?:{VALUE}))?")
#: What a JSON Schema calls a type, and what TOML calls it.
TOML_TYPES = {"integer": "an integer", "number": "a number", "string": "a string", "object": "a table"}


def configuration_page() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *(line for table in TABLES for line in _section(table))])


def _section(table: str) -> Iterator[str]:
    heading, summary = TABLES[table]
    yield from (f"## {heading}", "", summary, "")
    said = [item for item in key_descriptions() if item.table == table]
    texts = {key: item.text for item in said for key in item.keys}
    for item in said:
        if not item.keys:
            yield from (_sentences(item.text), "")
    if table == "profiles":
        yield from _profile_keys()
        return
    described: set[str] = set()
    for key, field in _fields(MODELS[table]):
        if key in described:
            continue
        group = next((item.keys for item in said if key in item.keys), (key,))
        described |= set(group)
        names = ", ".join(f"`{name}`" for name in group)
        text = _sentences(field.description or texts.get(key, ""))
        yield f"- {names}: {_facts(MODELS[table], group)} {text}"
    yield ""


def _profile_keys() -> Iterator[str]:
    keys = [f"`{key}`" for key, _ in _fields(Profile)]
    yield from (f"A profile takes these keys, as they are described above: {', '.join(keys)}.", "")


def _fields(model: type[Table]) -> Iterator[tuple[str, Any]]:
    """Yield each key of a table with its field; tables in it have sections of their own."""
    for name, field in model.model_fields.items():
        if not field.exclude and name not in TABLES:
            yield field.alias or name, field


def _facts(model: type[Table], group: tuple[str, ...]) -> str:
    """Return type and default of the keys of a group, in one sentence where they share the type."""
    fields = dict(_fields(model))
    types = {key: TYPES.get(key) or _type(_schema(fields[key])) for key in group}
    defaults = {key: _default(key, fields[key]) for key in group}
    if len(set(types.values())) == 1:
        return _capital(f"{types[group[0]]}; default {', '.join(dict.fromkeys(defaults.values()))}.")
    return _capital("; ".join(f"`{key}`: {types[key]}, default {defaults[key]}" for key in group) + ".")


def _schema(field: Any) -> dict[str, Any]:
    kind: Any = Annotated[(field.annotation, field.alias, *field.metadata)]
    return TypeAdapter(kind).json_schema()


def _default(key: str, field: Any) -> str:
    """Return a key's default; where a word such as "auto" stands for its absence, that word."""
    value = to_jsonable_python(field.get_default(call_default_factory=True), by_alias=True)
    value = NONE.get(key) or None if value is None else value
    return "none" if value is None else f"`{_toml(value)}`"


def _type(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, e.g. `an integer from 1 to 100`."""
    if "anyOf" in schema:
        return " or ".join(_type(item) for item in schema["anyOf"] if item.get("type") != "null")
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"`{_toml(value)}`" for value in values)
    match schema.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "array":
            return f"an array of {_type(schema['items'])}"
        case "object":
            return TOML_TYPES["object"]
        case kind:
            return TOML_TYPES[str(kind)] + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    """Return the limits of a number, e.g. ` from 1 to 100`; limits of a string's length go without saying."""
    least, most, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
    if above is not None:
        return f" above {above}" + (f", at most {most}" if most is not None else "")
    if least is not None:
        return f" from {least} to {most}" if most is not None else f", at least {least}"
    return ""


def _toml(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _sentences(text: str) -> str:
    """Return a description as Markdown: sentences, with the commands that are shown in blocks."""
    lines = [line if line.startswith("    ") else _marked(line.strip()) for line in text.splitlines()]
    joined = "\n".join(f"\n{line}\n" if line.startswith("    ") else line for line in lines).strip()
    return _finished(re.sub(r"\n{3,}", "\n\n", joined))


def _marked(text: str) -> str:
    """Return a text with its keys and values in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else CODE.sub(_code_or_text, escape(part)) for part in parts)


def _code_or_text(found: re.Match[str]) -> str:
    is_word = found[0].isalpha() and found.end() < len(found.string) and found[0] not in ("true", "false")
    return found[0] if is_word else f"`{found[0]}`"


def _finished(text: str) -> str:
    """Return a text that begins like a sentence and ends like one."""
    if not text:
        return ""
    begun = text if re.match(r"[\w.]*/", text) else _capital(text)
    return begun if begun.endswith((".", ":", "?", ")")) else f"{begun}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
