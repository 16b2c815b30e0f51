"""The types of OpenAI's official client, which hold what we write to them.

Only a test that uses them imports them: that takes a second, in each process that collects the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obcd.core.request.records import Kind

if TYPE_CHECKING:
    from openai.types import Batch


def check_batch(document: object) -> Batch:
    """Return a document as a batch object; it fails if a member is missing or has another type."""
    from openai.types import Batch  # noqa: PLC0415

    return Batch.model_validate(document, strict=True)


def check_body(kind: Kind, document: object) -> None:
    """Fail if the body of a response is not what the client expects."""
    from openai.types import Completion, CreateEmbeddingResponse  # noqa: PLC0415
    from openai.types.chat import ChatCompletion  # noqa: PLC0415

    types: dict[Kind, Any] = {Kind.CHAT: ChatCompletion, Kind.COMPLETE: Completion, Kind.EMBED: CreateEmbeddingResponse}
    types[kind].model_validate(document, strict=True)
