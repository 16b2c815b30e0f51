"""Names of models: which are possible, and what to do if an endpoint has no model of a name."""

from __future__ import annotations

import re

#: `[host[:port]/][namespace/]model[:tag]` (ollama types/model/name.go: isValidPart).
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(rf"((https?://)?[A-Za-z0-9_][A-Za-z0-9_.-]*(:\d{{1,5}})?/)?({_PART}/)?{_PART}(:{_PART})?")
MAX_LENGTH = 400
#: The end of the name of a model that ollama.com computes (ollama internal/modelref/modelref.go: parseSourceSuffix).
_CLOUD = re.compile(r":(cloud|[^/:]*-cloud)$", re.IGNORECASE)
#: Names of models that only their maker's service has; files made for that service name them.
_OF_A_SERVICE = re.compile(r"(?:gpt-[345]|chatgpt-|o[1-9](?:-|:|$)|text-embedding-\d|claude-|gemini-)", re.IGNORECASE)
#: The addresses that `ollama pull` uses by default.
_LOCAL = ("http://127.0.0.1:11434", "http://localhost:11434")


def is_name(model: str) -> bool:
    """Return whether a model can have this name."""
    return len(model) <= MAX_LENGTH and NAME.fullmatch(model) is not None


def is_cloud(model: str) -> bool:
    """Return whether ollama.com computes a model of this name: no server of the cluster has it, or should."""
    return _CLOUD.search(model) is not None


def is_of_service(model: str) -> bool:
    """Return whether a name looks like that of a model that no Ollama can pull, such as `gpt-4o-mini`."""
    return _OF_A_SERVICE.match(model) is not None


def how_to_get(model: str, url: str = "") -> str:
    """Return what to do about a model that an endpoint lacks, as a clause.

    Args:
        url: The endpoint's; "" for one that only its own machine may use without a token.
    """
    if not is_name(model):
        return "no model can have that name: write e.g. llama3.2, llama3.2:1b, hf.co/user/model:Q4_K_M"
    if is_cloud(model):
        return "ollama.com computes it, to which prompts would go: name a model that your own servers can load"
    if is_of_service(model):
        name = model.removesuffix(":latest")
        swap = f'aliases = {{"{name}" = "llama3.2"}}'
        return f"no Ollama has it: put a model of yours in its place in the configuration, {swap}"
    pull = f"ollama pull {model}"
    if not url:
        return f"{pull}, on its machine"
    return pull if url in _LOCAL else f"OLLAMA_HOST={url.removeprefix('http://')} {pull}"
