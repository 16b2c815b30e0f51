"""What a server holds in memory, as `GET /api/ps` tells, and whether that is what requests need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Signature, canonical_model
from obcd.text import printable

#: What is kept of the list: so many models, with names of so many characters.
MAX_MODELS, MAX_NAME = 100, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that a server holds.

    Attributes:
        size_bytes, vram_bytes: Of the whole, and of what lies on the card.
        context_length: Tokens of each slot; 0 when it is not told.
    """

    name: str
    size_bytes: int
    vram_bytes: int
    context_length: int = 0


def read_loaded(document: Mapping[str, Any]) -> tuple[Loaded, ...]:
    """Read the body of /api/ps: `{"models": [{"name", "size", "size_vram", "context_length", …}]}`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: If it is not Ollama's.
    """
    return tuple(
        Loaded(
            name=printable(str(item["name"])[:MAX_NAME]),
            size_bytes=int(item["size"]),
            vram_bytes=int(item.get("size_vram", item["size"])),  # not told is no reason for a restart
            context_length=int(item.get("context_length") or 0),
        )
        for item in (document.get("models") or [])[:MAX_MODELS]
    )


def find_loaded(models: Iterable[Loaded], model: str) -> Loaded | None:
    """Return a model by its canonical name, None when it is not loaded."""
    return next((item for item in models if canonical_model(item.name) == model), None)


def judge_gpu(found: Loaded) -> Fault | None:
    """Say whether a part of the model lies outside of the card."""
    if found.vram_bytes >= found.size_bytes:
        return None
    share = min(99, round(100 * found.vram_bytes / found.size_bytes))
    where = f"only {share} % of it lies on the GPU" if found.vram_bytes else "it is computed on the CPU"
    return unfit(
        "off_gpu", f"{where}, and require_gpu is set: give it a card with more memory, or lower num_ctx or slots"
    )


def is_lowered(found: Loaded, signature: Signature, trained: int = 0) -> bool:
    """Tell whether a model is loaded with a smaller context than a signature asks for.

    Args:
        trained: The longest context of the model itself, to which every server lowers it; 0 for any.
    """
    wanted = signature.num_ctx
    return 0 < found.context_length < (min(wanted, trained) if trained else wanted)


def judge_context(found: Loaded, signature: Signature, trained: int) -> Fault | None:
    """Say whether the server lowered the context: prompts that fit elsewhere would be refused there."""
    if not is_lowered(found, signature, trained):
        return None
    return unfit(
        "context_lowered",
        f"the server gave it a context of {found.context_length} tokens in place of "
        f"{min(trained, signature.num_ctx)}, for want of memory most often: "
        "lower num_ctx, or the server's slots (OLLAMA_NUM_PARALLEL)",
    )


def unfit(kind: str, message: str) -> Fault:
    """Return the fault of an endpoint that cannot serve a signature as it should; the request bears no blame."""
    return Fault(kind, message, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.UNFIT)
