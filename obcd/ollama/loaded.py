"""The models that a server has in memory, from `GET /api/ps`, and whether they are what requests need. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Signature, canonical_model
from obcd.text import printable

#: Most models of the list that are kept, and most characters of their names.
MAX_MODELS, MAX_NAME = 100, 200
#: The context of a slot is a multiple of so many tokens (llama.cpp src/llama-context.cpp; measured on v0.33).
CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that a server has in memory.

    Attributes:
        size_bytes, vram_bytes: The size of the whole model, and of its part on the GPU.
        context_length: Tokens of each slot; 0 if the server does not state it.
        expires_at: The end of its keep-alive time, in Unix seconds of the server's clock; 0 if it does not state it.
    """

    name: str
    size_bytes: int
    vram_bytes: int
    context_length: int = 0
    expires_at: float = 0.0


def read_loaded(document: Mapping[str, Any]) -> tuple[Loaded, ...]:
    """Read the body of /api/ps: `{"models": [{"name", "size", "size_vram", "context_length", …}]}`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: If the body does not have Ollama's form.
    """
    return tuple(
        Loaded(
            name=printable(str(item["name"])[:MAX_NAME]),
            size_bytes=int(item["size"]),
            vram_bytes=int(item.get("size_vram", item["size"])),  # an unstated size is no reason for a restart
            context_length=int(item.get("context_length") or 0),
            expires_at=_seconds_of(str(item.get("expires_at") or "")[:MAX_NAME]),
        )
        for item in (document.get("models") or [])[:MAX_MODELS]
    )


def _seconds_of(moment: str) -> float:
    """Return the Unix seconds of a time as Go writes it; for one that is none, 0.

    It has up to nine digits of a second; with keep_alive -1 it lies centuries ahead.
    """
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def find_loaded(models: Iterable[Loaded], model: str) -> Loaded | None:
    """Return a model by its canonical name, None if it is not loaded."""
    return next((item for item in models if canonical_model(item.name) == model), None)


def judge_gpu(found: Loaded) -> Fault | None:
    """Return the fault of a model of which a part is not on the GPU, None if all of it is."""
    if found.vram_bytes >= found.size_bytes:
        return None
    share = min(99, round(100 * found.vram_bytes / found.size_bytes))
    where = f"only {share} % of it is on the GPU" if found.vram_bytes else "it is computed on the CPU"
    return unfit(
        FaultKind.OFF_GPU,
        f"{where}, and require_gpu is set: give it a card with more memory, or lower num_ctx or slots",
    )


def is_lowered(found: Loaded, signature: Signature, trained: int = 0) -> bool:
    """Return whether a model is loaded with a smaller context than a signature requests.

    Args:
        trained: The longest context of the model itself, to which every server lowers it; 0 for any.
    """
    wanted = min(signature.num_ctx, trained) if trained else signature.num_ctx
    return found.context_length > 0 and _padded(found.context_length) < _padded(wanted)


def _padded(tokens: int) -> int:
    """Return the context that llama.cpp makes of this one: a multiple of 256 (llama-context.cpp)."""
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP


def judge_context(found: Loaded, signature: Signature, trained: int) -> Fault | None:
    """Return the fault of a context that the server lowered: it would refuse prompts that fit elsewhere."""
    if not is_lowered(found, signature, trained):
        return None
    return unfit(
        FaultKind.CONTEXT_LOWERED,
        f"the server gave it a context of {found.context_length} tokens instead of "
        f"{min(trained, signature.num_ctx)}, usually because memory is short: "
        "lower num_ctx, or the server's slots (OLLAMA_NUM_PARALLEL)",
    )


def unfit(kind: FaultKind, message: str) -> Fault:
    """Return the fault of an endpoint that cannot serve a signature as it should; the request is not to blame."""
    return Fault(kind, message, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.UNFIT)
