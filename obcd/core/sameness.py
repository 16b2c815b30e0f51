"""Which requests are the same question: a key of all that an answer depends on. Pure.

Only what is answered alike each time has one: at temperature 0, with a seed, or vectors. What Ollama takes from the
model itself (its own temperature, say) is not known here, so it has to be asked for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from obcd.core.records import (
    PATHS,
    JobSettings,
    Kind,
    Request,
    canonical_model,
    format_of,
    request_body,
    request_options,
)

#: Changes whenever the same request would get another record: how repairs are asked, say.
VERSION = 1


def is_repeatable(request: Request, settings: JobSettings) -> bool:
    """Tell whether the same weights give a request the same answer each time, as far as servers keep that."""
    if request.kind is Kind.EMBED:
        return True
    options = request_options(request, settings)
    seed = options.get("seed", -1)  # by -1 Ollama draws one
    return options.get("temperature") == 0 or seed >= 0


def key_of(request: Request, settings: JobSettings, digest: str) -> bytes | None:
    """Return what is equal for equal questions to equal weights, 32 bytes; None where the answer is not repeatable.

    The order of the options is of no meaning; that of all else is (a grammar follows the order of its schema's keys).

    Args:
        digest: Of the weights that answer, "" where they are not known: then it is only a key within one job.
    """
    return digest_of(request, settings, digest) if is_repeatable(request, settings) else None


def digest_of(request: Request, settings: JobSettings, digest: str = "") -> bytes:
    """Return what is equal for requests that ask the same in the same way, 32 bytes, repeatable or not."""
    body: dict[str, Any] = request_body(request, settings)
    body["model"] = canonical_model(body["model"])
    body["options"] = dict(sorted(body["options"].items()))
    wanted = format_of(request, settings)
    held_to = None if wanted is None else [wanted, settings.send_schema, settings.repairs]
    document = [VERSION, digest, PATHS[request.kind], body, held_to]
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode("ascii")).digest()
