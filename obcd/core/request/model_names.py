"""Names of models: which there can be, and what to do where an endpoint has none of that name."""

from __future__ import annotations

import re

#: `[host[:port]/][namespace/]model[:tag]` (ollama types/model/name.go: isValidPart).
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(rf"((https?://)?[A-Za-z0-9_][A-Za-z0-9_.-]*(:\d{{1,5}})?/)?({_PART}/)?{_PART}(:{_PART})?")
MAX_LENGTH = 400
#: What ends the name of a model that ollama.com computes (ollama internal/modelref/modelref.go: parseSourceSuffix).
_CLOUD = re.compile(r":(cloud|[^/:]*-cloud)$", re.IGNORECASE)
#: Where `ollama pull` asks by itself.
_LOCAL = ("http://127.0.0.1:11434", "http://localhost:11434")


def is_name(model: str) -> bool:
    """Return whether a model can have this name."""
    return len(model) <= MAX_LENGTH and NAME.fullmatch(model) is not None


def is_cloud(model: str) -> bool:
    """Return whether a model of this name is computed by ollama.com: no server of the cluster has it, or should."""
    return _CLOUD.search(model) is not None


def how_to_get(model: str, url: str = "") -> str:
    """Return what to do about a model that an endpoint lacks, as a clause.

    Args:
        url: The endpoint's; "" for one that only its own machine may ask so (it wants a token).
    """
    if not is_name(model):
        return "no model can have that name: write e.g. llama3.2, llama3.2:1b, hf.co/user/model:Q4_K_M"
    if is_cloud(model):
        return "ollama.com computes it, to which prompts would go: name a model that your own servers can load"
    pull = f"ollama pull {model}"
    if not url:
        return f"{pull}, on its machine"
    return pull if url in _LOCAL else f"OLLAMA_HOST={url.removeprefix('http://')} {pull}"
