"""Loading a signature before its requests are sent, and looking at what the server made of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import Signature
from obcd.core.scheduling.weights import describe_odd, shorten
from obcd.ollama.client import preload
from obcd.ollama.control import ControlError, ask_digests, ask_loaded, ask_trained_context
from obcd.ollama.loaded import Loaded, find_loaded, is_lowered, judge_context, judge_gpu, unfit
from obcd.ollama.transport import Transport
from obcd.secret import Secret

#: Seconds without a request after which the model may have been unloaded (Ollama's keep-alive is five minutes).
LOADED_SECONDS = 60.0
#: How often a model that is gone at the look is loaded again, before it counts as one that never stays.
LOADS = 3
#: An answer that waited so long for its model, in seconds, had the server load it anew: that was not our doing.
RELOAD_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Preflight:
    """How closely one looks.

    Attributes:
        token: Sent with each look.
        require_gpu: Whether the whole model has to lie on the GPU.
    """

    token: Secret | None = None
    require_gpu: bool = False


class Loader:
    """Loads a signature once, under the long limit that loading needs; any slot's thread.

    A request whose limit is shorter than the load would kill the load by its disconnect, for ever (ollama
    llm/llama_server.go).
    """

    def __init__(self, url: str, preflight: Preflight) -> None:
        self._url = url
        self._preflight = preflight
        self._lock = threading.Lock()
        self._loaded: Signature | None = None
        self._used_at = 0.0
        #: What it has loaded while nobody is answered; None: all is well, as far as is known.
        self._doubted: Signature | None = None

    def configure(self, preflight: Preflight) -> None:
        """Look so closely from the next request on."""
        self._preflight = preflight
        self.forget()

    def ensure(self, transport: Transport, signature: Signature) -> Fault | None:
        """Load the signature unless it is loaded; one slot loads, the others wait for it."""
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

    def note_used(self, signature: Signature, digest: str, load_seconds: float) -> Fault | None:
        """Take note that the loaded model answered.

        Where the server has loaded it anew on the way, it is looked at again before the next request; perhaps somebody
        pulled another one under its name.

        Args:
            digest: Of the weights that had to answer, "" for any.
            load_seconds: How long the answer waited for its model.

        Returns:
            The fault of an answer that came from other weights.
        """
        self.on_life()
        if load_seconds < RELOAD_SECONDS:
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
        """What the server has loaded while it answers nobody, None while nothing is known against it."""
        return self._doubted

    def on_silence(self, signature: Signature, sent_at: float) -> bool:
        """Take note of a request that was broken off since it took too long.

        Returns:
            Whether nobody else was answered in the second half of that time: then the server may hang.
        """
        self.forget()
        if self._used_at <= (sent_at + monotonic()) / 2:
            self._doubted = signature
        return self._doubted is not None

    def on_life(self) -> None:
        """Take note that the server answered somebody, or may be tried again."""
        self._used_at, self._doubted = monotonic(), None

    def forget(self) -> None:
        """Take note that the server may have lost the model."""
        self._loaded = None

    def _is_loaded(self, signature: Signature) -> bool:
        return self._loaded == signature and monotonic() - self._used_at < LOADED_SECONDS

    def _load(self, transport: Transport, signature: Signature) -> Fault | None:
        for _ in range(LOADS):
            fault = preload(transport, signature)
            if fault is not None:
                return fault
            try:
                found = find_loaded(ask_loaded(self._url, self._preflight.token), signature.model)
            except ControlError as error:
                return self._judge_unseen(f"what it has loaded cannot be seen ({error})")
            if found is not None:
                return self._judge(found, signature)
        return self._judge_unseen("it keeps no model loaded (look at its OLLAMA_KEEP_ALIVE)")

    def _judge(self, found: Loaded, signature: Signature) -> Fault | None:
        if self._preflight.require_gpu and (fault := judge_gpu(found)) is not None:
            return fault
        if not is_lowered(found, signature):
            return None
        try:
            trained = ask_trained_context(self._url, signature.model, self._preflight.token)
        except ControlError:
            return None  # not known: it may be all that the model can
        return judge_context(found, signature, trained) if trained else None

    def _judge_unseen(self, reason: str) -> Fault | None:
        """What is not known is held against an endpoint only where it has to be known."""
        if not self._preflight.require_gpu:
            return None
        return unfit(
            FaultKind.UNSEEN, f"whether it is computed on the GPU is not known, and require_gpu is set: {reason}"
        )
