"""The files that the golden tests drop: between them every kind of line, and every kind of result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import write_config

MODELS = "llama3.2,qwen3,nomic-embed-text"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
IMPOSSIBLE = {"type": "string", "not": {"type": "string"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
COLD = {"temperature": 0.0, "seed": 1}


def lines(*documents: Any) -> bytes:
    """Return a file of these lines; text stands as it is."""
    return b"".join((item if isinstance(item, str) else json.dumps(item)).encode() + b"\n" for item in documents)


#: Lines of obcd's and of the seed's shape. Among them: equal ones, a blank and a bad one, some that fail for good.
MIXED = lines(
    {"role": "user", "content": "What is two plus two?"},
    {"id": "plain", "prompt": "Why is the sky blue?", "ward": "B2", "système": "é"},
    {"id": "same", "prompt": "Why is the sky blue?"},
    "",
    {"id": "own", "prompt": "Name a tree.", "system": "Be short.", "options": {"num_predict": 9, "stop": ["\n"]}},
    {"id": "talk", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                                {"role": "user", "content": "c"}]},
    {"id": "thought", "prompt": "Why not?", "model": "qwen3"},
    {"id": "vectors", "embed": ["one", "two"], "model": "nomic-embed-text", "dimensions": 3},
    {"id": "several", "prompt": "Tell a joke.", "n": 2, "options": {"seed": 40}},
    {"id": "call", "prompt": "Weather?", "tools": [TOOL]},
    {"id": "sure", "prompt": "Sure?", "logprobs": True, "top_logprobs": 1, "options": {"num_predict": 2}},
    {"id": "rest", "complete": "Once upon"},
    {"id": "cut", "prompt": "[[simulate:length]] Go on."},
    {"id": "record", "prompt": "A patient.", "format": SCHEMA},
    {"id": "repaired", "prompt": "[[simulate:length]] A patient.", "format": SCHEMA},
    {"id": "later", "prompt": "[[simulate:status=500*1]] Once more."},
    "not a line",
    {"id": 7, "prompt": "Who?", "format": {"$ref": "https://example.org/a.json"}},
    {"id": "never", "prompt": "A word.", "format": IMPOSSIBLE, "options": {"num_predict": 4}},
    {"id": "refused", "prompt": "[[simulate:status=400]] No."},
    {"id": "half", "prompt": "[[simulate:status=400*1]] Tell another.", "n": 2},
    {"id": "tired", "prompt": "[[simulate:empty-thinking]] Think."},
)  # fmt: skip

#: The equal requests of all kinds that a cache answers: drop it twice.
REMEMBERED = lines(
    {"id": "cold", "prompt": "Who?", "options": COLD},
    {"id": "vector", "embed": "Which numbers?", "model": "nomic-embed-text", "dimensions": 3},
    {"id": "several", "prompt": "Who, often?", "n": 2, "options": COLD},
)


def asked(custom_id: str, body: dict[str, Any], url: str = "/v1/chat/completions") -> dict[str, Any]:
    """Return a line of an OpenAI Batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def chat(custom_id: str, text: str, **wishes: Any) -> dict[str, Any]:
    """Return a line that asks for a chat completion."""
    return asked(custom_id, {"model": "llama3.2", "messages": [{"role": "user", "content": text}]} | wishes)


OPENAI = lines(
    chat("plain", "Why is the sky blue?", max_completion_tokens=20, temperature=0, metadata={"a": "b"}),
    chat("object", "A patient, please.", response_format={"type": "json_object"}),
    chat("tool", "The weather in Riga?", tools=[TOOL], tool_choice="auto"),
    chat("two", "A number?", n=2, seed=5),
    chat("likely", "A number?", logprobs=True, top_logprobs=1, max_tokens=2),
    asked("text", {"model": "llama3.2", "prompt": "Once upon", "max_tokens": 3, "logprobs": 1}, "/v1/completions"),
    asked("vectors", {"model": "nomic-embed-text", "input": ["one", "two"], "dimensions": 3}, "/v1/embeddings"),
    "{no JSON",
    chat("refused", "[[simulate:status=400]] Hello"),
    chat("cut", "[[simulate:empty-thinking]] Hello"),
    chat("long", "[[simulate:tokens=99999]] Hello"),
)

#: Rows of the profile `visits`, whose template makes prompts of them.
VISITS = b'id,note\nv1,Came with a cough.\nv2,"Left, well."\nv3,[[simulate:status=400]]\n'

#: One line fails the first time that it is asked, one always.
FAILING = lines(
    {"id": "good", "prompt": "A patient.", "format": SCHEMA},
    {"id": "first", "prompt": "[[simulate:status=400*1]] A second patient.", "format": SCHEMA},
    {"id": "always", "prompt": "[[simulate:status=400]] A third patient.", "format": SCHEMA},
)


def configure(folder: Path, endpoint: str, slots: int = 2) -> Path:
    """Write the configuration that these drops are made for; its model `mistral` has to be fetched."""
    (folder / "visit.schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    return write_config(
        folder / "obcd.toml",
        {endpoint: slots},
        dedupe=True,
        spool={"active_jobs": 3},
        requests={"pull": True, "attempts": 2, "repairs": 1, "options": {"seed": 3}},
        profiles={
            "visits": {"template": "Summarise: {note}", "accept": ["csv"], "schema": "visit.schema.json"},
            "nightly": {"repeat": "skip", "system_message": "Be short."},
            "remembered": {"cache": True, "num_ctx": "auto"},
            "fetched": {"model": "mistral"},
        },
    )
