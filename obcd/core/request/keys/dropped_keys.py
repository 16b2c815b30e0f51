"""Keys of a line that are not sent: those without an effect on the answer, and those that the profile ignores. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container

#: Keys of a message that have no effect on an answer: what training makes of it, and what data sets say of it. Sources:
#: OpenAI's fine-tuning files (weight), axolotl (train, train_detail, train_turn), TRL and LLaMA-Factory (loss, mask),
#: WildChat and LMSYS-Chat (timestamp, toxic, …), OpenAI's and Anthropic's replies that are sent back (annotations, …).
LABELS = frozenset(
    (
        *("weight", "train", "train_detail", "train_turn", "trainable", "loss", "loss_mask", "loss_weight", "mask"),
        *("id", "message_id", "parent_id", "turn", "turn_id", "turn_identifier", "index", "rank", "score", "rating"),
        *("timestamp", "created_at", "create_time", "update_time", "date", "country", "language", "lang", "metadata"),
        *("hashed_ip", "header", "redacted", "toxic", "state", "model", "end_turn", "finish_reason", "stop_reason"),
        *("stop_sequence", "usage", "logprobs", "token_count", "annotations", "parsed", "cache_control", "emotion"),
    )
)


class Everything:
    """A container of all names, for reading a line that another process has accepted."""

    def __contains__(self, name: object) -> bool:
        return True


class Dropped:
    """Records which keys of one line are dropped.

    Attributes:
        keys: Their places without numbers, in the order of the line, e.g. "body.tool_choice", "messages[].weight"; at
            most as many as there are labels and names in `ignore`.
    """

    __slots__ = ("_ignore", "keys")

    def __init__(self, ignore: Container[str] = ()) -> None:
        self._ignore = ignore
        self.keys: dict[str, None] = {}

    def record(self, place: str) -> None:
        """Record a key that has no effect on the answer."""
        self.keys[place] = None

    def excuses(self, place: str, key: str) -> bool:
        """Return whether the profile ignores a key that cannot be honoured; if so, record it.

        Args:
            place: What the key is in, without numbers, e.g. `body`; `ignore` may list the last part of it instead.
        """
        if key in self._ignore:
            self.record(f"{place}.{key}")
        elif place.rpartition(".")[2] in self._ignore:  # then the key may be any text, and is not repeated
            self.record(place)
        else:
            return False
        return True


def has_no_effect(place: str) -> bool:
    """Return whether a recorded key is one that has no effect; the others were ignored at the profile's wish."""
    head, _, key = place.rpartition(".")
    return head == "messages[]" and key in LABELS


def why_misspelt(key: str, known: Collection[str]) -> str:
    """Return what is wrong with a key that is a known one except for spaces around it, "" for any other key."""
    bare = key[:80].strip()
    return f"it has a space in its name: write `{bare}`" if bare != key and bare in known else ""
