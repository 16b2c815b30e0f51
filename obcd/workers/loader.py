"""Load a signature before its requests are sent, and check how the server loaded it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import JobSettings, Request, Signature
from obcd.core.scheduling.weights import describe_odd, shorten
from obcd.ollama.client import preload
from obcd.ollama.control import ControlError, ask_digests, ask_loaded, ask_trained_context, find_shared
from obcd.ollama.loaded import Loaded, find_loaded, is_lowered, judge_context, judge_gpu, unfit
from obcd.ollama.transport import Transport
from obcd.secret import Secret
from obcd.workers.abilities import Abilities

#: Seconds without a request after which the model may have been unloaded (Ollama's keep-alive is five minutes).
LOADED_SECONDS = 60.0
#: How often a model is loaded that is gone at the check, before it counts as one that never stays loaded.
LOADS = 3
#: If a response waited so many seconds for its model, the server has reloaded the model, which obcd did not cause.
RELOAD_SECONDS = 0.5
#: A loaded model costs a request up to so many seconds of load_duration (0.18 on v0.24, 0.003 on v0.33).
LOADED_LOAD_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Preflight:
    """How strictly a loaded model is checked.

    Attributes:
        token: Sent with each check.
        require_gpu: Whether the whole model has to be on the GPU.
    """

    token: Secret | None = None
    require_gpu: bool = False


class Loader:
    """Loads a signature once, under the long time limit that loading needs. The threads of all slots may call it.

    A request whose time limit is shorter than the load would end the load by its disconnect, again and again (ollama
    llm/llama_server.go).
    """

    def __init__(self, url: str, preflight: Preflight) -> None:
        self._url = url
        self._preflight = preflight
        self._abilities = Abilities(url)
        self._lock = threading.Lock()
        self._loaded: Signature | None = None
        self._used_at = 0.0
        #: The loaded signature while the server does not respond to any request; None while no fault is known.
        self._doubted: Signature | None = None
        #: Whether the server listed the model after its last load; some servers and proxies list none.
        self.was_listed = False

    def configure(self, preflight: Preflight) -> None:
        """Check in this way from the next request on."""
        self._preflight = preflight
        self.forget()

    def ensure(self, transport: Transport, signature: Signature) -> Fault | None:
        """Load the signature unless it is loaded; one slot loads it, the others wait."""
        if self._is_loaded(signature):
            return None
        with self._lock:
            if self._is_loaded(signature):
                return None
            self._loaded = None
            fault = self._load(transport, signature)
            if fault is None:
                self._loaded, self._used_at = signature, monotonic()
            return fault

    def refusal(self, request: Request, settings: JobSettings, signature: Signature, digest: str) -> Fault | None:
        """Return the fault of a request that needs what its model cannot do; then it must not be sent."""
        return self._abilities.refusal(request, settings, signature, digest, self._preflight.token)

    def note_used(self, signature: Signature, digest: str, load_seconds: float, requests: int = 1) -> Fault | None:
        """Record that the loaded model responded.

        If the server has reloaded the model meanwhile, it is checked again before the next request: somebody may have
        pulled another model under its name.

        Args:
            digest: The digest of the weights that had to be used, "" for any.
            load_seconds: How long the response waited for its model.
            requests: In how many requests, with those that repaired it.

        Returns:
            The fault of a response that came from other weights.
        """
        self.on_life()
        if load_seconds - (requests - 1) * LOADED_LOAD_SECONDS < RELOAD_SECONDS:
            return None
        self.forget()
        if not digest:
            return None
        try:
            own = shorten(ask_digests(self._url, self._preflight.token)).get(signature.model, digest)
        except ControlError:
            return None
        if own == digest:
            return None
        message = describe_odd(signature.model, own, digest)
        return Fault(FaultKind.OTHER_WEIGHTS, message, Remedy.ELSEWHERE, costs_attempt=False)

    @property
    def doubted(self) -> Signature | None:
        """The loaded signature while the server does not respond to any request, None while no fault is known."""
        return self._doubted

    def on_silence(self, signature: Signature, sent_at: float) -> bool:
        """Record a request that was cancelled because it took too long.

        Returns:
            Whether no other request got a response in the second half of that time: then the server may hang.
        """
        self.forget()
        if self._used_at <= (sent_at + monotonic()) / 2:
            self._doubted = signature
        return self._doubted is not None

    def on_life(self) -> None:
        """Record that the server responded to a request, or may be tried again."""
        self._used_at, self._doubted = monotonic(), None

    def forget(self) -> None:
        """Record that the server may have unloaded the model."""
        self._loaded = None

    def _is_loaded(self, signature: Signature) -> bool:
        return self._loaded == signature and monotonic() - self._used_at < LOADED_SECONDS

    def _load(self, transport: Transport, signature: Signature) -> Fault | None:
        for _ in range(LOADS):
            fault = preload(transport, signature)
            if fault is not None:
                return fault
            try:
                models = ask_loaded(self._url, self._preflight.token)
                found = find_loaded(models, signature.model) or self._find_shared(models, signature)
            except ControlError as error:
                self.was_listed = False
                return self._judge_unseen(f"its loaded models cannot be listed ({error})")
            self.was_listed = found is not None
            if found is not None:
                return self._judge(found, signature)
        return self._judge_unseen("it keeps no model loaded (check its OLLAMA_KEEP_ALIVE)")

    def _find_shared(self, models: Sequence[Loaded], signature: Signature) -> Loaded | None:
        return find_shared(models, self._url, signature.model, self._preflight.token)

    def _judge(self, found: Loaded, signature: Signature) -> Fault | None:
        if self._preflight.require_gpu and (fault := judge_gpu(found)) is not None:
            return fault
        if not is_lowered(found, signature):
            return None
        try:
            trained = ask_trained_context(self._url, signature.model, self._preflight.token)
        except ControlError:
            return None  # not known: it may be the longest context of the model
        return judge_context(found, signature, trained) if trained else None

    def _judge_unseen(self, reason: str) -> Fault | None:
        """Return a fault for a missing finding only if the finding is required."""
        if not self._preflight.require_gpu:
            return None
        return unfit(FaultKind.UNSEEN, f"it is not known whether the GPU computes it, and require_gpu is set: {reason}")
