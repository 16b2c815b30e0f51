"""The prefix cache of a loaded model: which prompts its slots remember, and how much of the next one is there.

A request evaluates only the tokens behind the longest beginning that it shares with the cache of its slot. Slots that
are in use share nothing, so requests with one prefix that are in flight together each evaluate it. Pure.

    slots     a prompt gets the free slot that shares the longest beginning, the first one where several share as much.
              Ollama v0.24: runner/llamarunner/cache.go and runner/ollamarunner/cache.go, `findLongestCacheSlot` (no
              threshold, no order of use; `findBestCacheSlot` only with OLLAMA_MULTIUSER_CACHE=1).
    memory    a prompt gets the free slot that shares the longest beginning, if that is more than a tenth of the prompt,
              else the one that was used least recently. What is lost there is saved in the host's memory, as is every
              idle slot when a request starts; a saved prompt that shares more is moved back into the slot.
              Ollama v0.33: llama.cpp tools/server/server-context.cpp, `get_available_slot`; server-task.cpp,
              `server_prompt_cache` (builds 10229 and 10566 are equal here; v0.33 has 10488 between them).

Answers are remembered behind their prompts, as both versions do. The last token of a prompt is always evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class PrefixCaching(StrEnum):
    """What a simulated server remembers of the prompts that it has evaluated."""

    OFF = "off"  # nothing: every prompt is evaluated in full
    SLOTS = "slots"  # each slot its last prompt
    MEMORY = "memory"  # that, and earlier prompts in the host's memory; replies say what came from there


#: smallest share of a prompt that makes llama-server prefer a slot (common/common.h: slot_prompt_similarity)
LEAST_SIMILARITY = 0.1
#: a slot that would keep less of its prompt than this is saved first (server-context.cpp: f_keep)
KEPT_SHARE = 0.5
#: smallest share of a saved prompt that a new one must have to take it out of the memory (server-task.cpp: load)
LEAST_USE = 0.25

#: llama-server's bound for saved prompts: 8192 MiB (common/common.h: cache_ram_mib)
MEMORY_BYTES = 8192 << 20
#: bytes of a token in the cache of llama3.2, 3B: keys and values of 28 layers, 8 heads of 128 numbers of 2 bytes
BYTES_PER_TOKEN = 2 * 28 * 8 * 128 * 2
MEMORY_TOKENS = MEMORY_BYTES // BYTES_PER_TOKEN

#: characters that are compared at first
_STEP = 64


def shared_length(one: str, other: str) -> int:
    """Return how many characters two texts share at their beginning; the time is linear in that number."""
    low, step, most = 0, _STEP, min(len(one), len(other))
    while low < most and one[low : low + step] == other[low : low + step]:
        low, step = low + step, step * 2
    if low >= most:
        return most
    high = min(most, low + step)  # the first difference is in [low, high), or one text ends there
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A text in a cache, and its tokens."""

    text: str = ""
    tokens: int = 0


_NOTHING = _Remembered()


@dataclass(slots=True)
class _Slot:
    remembered: _Remembered = _NOTHING
    used: int = -1  # number of the release that was its last; -1: never used
    is_busy: bool = False
    is_saved: bool = False  # in the host's memory as well


class SlotHold:
    """A slot while a request uses it; the caller must `release` it.

    Attributes:
        cached_tokens: Tokens of the prompt that need no evaluation; at least one does.
    """

    def __init__(self, cache: PrefixCache, slot: _Slot, prompt: str, tokens: int) -> None:
        self._cache, self._slot = cache, slot
        self._prompt = _Remembered(prompt, tokens)
        length = shared_length(slot.remembered.text, prompt)
        self.cached_tokens = max(0, min(tokens - 1, tokens * length // max(1, len(prompt))))
        #: what the slot holds if the request ends now
        self._kept = _Remembered(prompt[:length], self.cached_tokens)

    def keep_prompt(self) -> None:
        """Record that the prompt is evaluated."""
        self._kept = self._prompt

    def keep_answer(self, answer: str, tokens: int) -> None:
        """Record that this answer is generated."""
        self._kept = _Remembered(self._prompt.text + answer, self._prompt.tokens + tokens)

    def release(self) -> None:
        """Free the slot, which remembers what was evaluated until now."""
        self._cache.release(self._slot, self._kept)


@dataclass(slots=True)
class PrefixCache:
    """The slots of one loaded model, and the prompts that are saved in the host's memory.

    Its memory is bounded by a context for each slot, and by `memory_tokens`.

    Attributes:
        slots: From 1.
        memory_tokens: Most tokens of saved prompts; 0: there is no such memory, and slots are chosen as by v0.24.
    """

    slots: int
    memory_tokens: int = 0
    _slots: list[_Slot] = field(init=False)
    _saved: list[_Remembered] = field(default_factory=list)  # the oldest first
    _saved_tokens: int = 0
    _releases: int = 0

    def __post_init__(self) -> None:
        """Make the slots."""
        self._slots = [_Slot() for _ in range(self.slots)]

    def take(self, prompt: str, tokens: int) -> SlotHold:
        """Return a free slot for a prompt of so many tokens; there must be one."""
        slot = self._most_alike(prompt) if self.memory_tokens else self._longest(prompt)
        slot.is_busy, slot.is_saved = True, False
        if self.memory_tokens:
            for other in self._slots:
                if not other.is_busy and not other.is_saved:
                    self._save(other)
        return SlotHold(self, slot, prompt, tokens)

    def release(self, slot: _Slot, remembered: _Remembered) -> None:
        """Free a slot that remembers this."""
        self._releases += 1
        slot.remembered, slot.used, slot.is_busy = remembered, self._releases, False

    def _free(self) -> list[_Slot]:
        return [slot for slot in self._slots if not slot.is_busy]

    def _longest(self, prompt: str) -> _Slot:
        return max(self._free(), key=lambda slot: shared_length(slot.remembered.text, prompt))

    def _most_alike(self, prompt: str) -> _Slot:
        slot = self._longest(prompt)
        length, own = shared_length(slot.remembered.text, prompt), len(slot.remembered.text)
        if length <= LEAST_SIMILARITY * len(prompt):
            slot = min(self._free(), key=lambda slot: slot.used)
        elif length >= KEPT_SHARE * own:
            return slot
        self._save(slot)
        self._restore(slot, prompt)
        return slot

    def _save(self, slot: _Slot) -> None:
        """Copy what a slot remembers to the host's memory, unless it is there or does not fit."""
        slot.is_saved = True
        text, tokens = slot.remembered.text, slot.remembered.tokens
        if not text or tokens > self.memory_tokens or any(saved.text.startswith(text) for saved in self._saved):
            return
        for obsolete in [saved for saved in self._saved if text.startswith(saved.text)]:
            self._forget(obsolete)
        while self._saved_tokens + tokens > self.memory_tokens:
            self._forget(self._saved[0])
        self._saved.append(slot.remembered)
        self._saved_tokens += tokens

    def _forget(self, saved: _Remembered) -> None:
        self._saved.remove(saved)
        self._saved_tokens -= saved.tokens

    def _restore(self, slot: _Slot, prompt: str) -> None:
        """Move a saved prompt into a slot, if it shares more of the new one and would lose less than the slot's."""
        own = slot.remembered.text
        length = shared_length(own, prompt)
        kept, best = length / len(own) if own else -1.0, None
        for saved in self._saved:
            if not prompt.startswith(saved.text[: int(LEAST_USE * len(saved.text))]):
                continue
            shared = shared_length(saved.text, prompt)
            if shared > length and shared / len(saved.text) > kept:
                length, kept, best = shared, shared / len(saved.text), saved
        if best is not None:
            self._forget(best)
            slot.remembered = best
