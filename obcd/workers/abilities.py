"""What the models of an endpoint can do, known before a request that needs more than text is sent.

Ollama v0.24 answers a picture for a model without vision as if there were none, and loads a model for texts to embed
before it refuses them. Its description of the model says so in advance.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from enum import StrEnum

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import JobSettings, Kind, Request, Signature, plain_model
from obcd.ollama.control import ControlError, ask_description, ask_version
from obcd.secret import Secret

#: Seconds for which a description counts, and after which one that failed is requested again.
KNOWN_SECONDS, UNKNOWN_SECONDS = 300.0, 15.0
#: Older versions make vectors with any model, whatever its capabilities (server/routes.go: EmbedHandler checks none).
STRICT_EMBEDDING = (0, 24)


class Ability(StrEnum):
    """What a request may need of a model; the values are Ollama's `capabilities`."""

    VISION = "vision"
    TOOLS = "tools"
    INSERT = "insert"
    EMBEDDING = "embedding"
    THINKING = "thinking"


#: {ability: what the model does not do, and the way out}
SENTENCES = {
    Ability.VISION: "does not see pictures: choose a model with vision, or remove `images`",
    Ability.TOOLS: "does not call tools: choose a model with tools, or remove `tools`",
    Ability.INSERT: "does not fill gaps: choose a model with insert, or remove `suffix`",
    Ability.EMBEDDING: "makes no vectors: choose an embedding model, or write `prompt` in place of `embed`",
    Ability.THINKING: "does not think: choose a model with thinking, or set think = false",
}


def needs(request: Request, settings: JobSettings) -> Iterator[Ability]:
    """Yield the abilities that a request needs beside writing text."""
    if request.kind is Kind.EMBED:
        yield Ability.EMBEDDING
        return
    if any(message.get("images") for message in request.messages):
        yield Ability.VISION
    if request.tools:
        yield Ability.TOOLS
    if request.suffix:
        yield Ability.INSERT
    if request.think if request.think is not None else settings.think:
        yield Ability.THINKING


class Abilities:
    """The abilities of an endpoint's models. The threads of all slots may call it; one asks, the others wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        #: {(model, digest of its weights): (its capabilities, None if unknown; until when that counts)}
        self._known: dict[tuple[str, str], tuple[frozenset[str] | None, float]] = {}
        #: Whether the server makes vectors only with embedding models, and until when that counts.
        self._strict: tuple[bool, float] = (True, 0.0)

    def refusal(
        self, request: Request, settings: JobSettings, signature: Signature, digest: str, token: Secret | None
    ) -> Fault | None:
        """Return the fault of a request whose model cannot do what it needs; None if it can, or if that is unknown.

        Args:
            digest: Of the weights that have to answer, "" for any.
        """
        for ability in needs(request, settings):
            capabilities = self._capabilities(signature.model, digest, token)
            if capabilities is None or ability in capabilities:
                continue
            if ability is Ability.EMBEDDING and not self._is_strict(token):
                continue
            message = f"the model '{plain_model(signature.model)}' {SENTENCES[ability]}"
            return Fault(FaultKind.UNSUPPORTED, message, Remedy.NEVER, costs_attempt=False, reached_model=False)
        return None

    def _capabilities(self, model: str, digest: str, token: Secret | None) -> frozenset[str] | None:
        with self._lock:
            known = self._known.get((model, digest))
            if known is not None and monotonic() < known[1]:
                return known[0]
            try:
                capabilities, seconds = ask_description(self._url, model, token).capabilities, KNOWN_SECONDS
            except ControlError:
                capabilities, seconds = None, UNKNOWN_SECONDS
            self._known = {key: item for key, item in self._known.items() if monotonic() < item[1]}
            self._known[model, digest] = capabilities, monotonic() + seconds
            return capabilities

    def _is_strict(self, token: Secret | None) -> bool:
        """Return whether the server makes vectors only with embedding models, as far as is known."""
        with self._lock:
            if monotonic() >= self._strict[1]:
                try:
                    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})\.", ask_version(self._url, token), re.ASCII)
                    is_strict = version is None or (int(version[1]), int(version[2])) >= STRICT_EMBEDDING
                    self._strict = is_strict, monotonic() + KNOWN_SECONDS
                except ControlError:
                    self._strict = True, monotonic() + UNKNOWN_SECONDS
            return self._strict[0]
