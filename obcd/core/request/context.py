"""How long a context a job's requests need, and which lengths the job gets. Pure.

`num_ctx = "auto"`: the context costs memory on the card, its length times the slots, and Ollama loads a model anew for
every other length. So a job gets one that holds nearly all of its requests, prompt and longest answer, and a larger one
for the longest percent, which come in a pass of their own. A length is a power of two: then jobs of one model most
often have the same, and no endpoint loads it anew between them; and what is worth a pass needs at least twice as much.

There is no tokenizer here. Tokens are estimated from the bytes of the text, rather too many than too few; the server
counts them again, and refuses what does not fit (`truncate: false`): then the request goes over to the larger context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from obcd.core.request.records import JobSettings, Kind, Request, Signature, whole_option
from obcd.errors import TooLongError

#: The least context, in tokens: below it the model itself takes the memory, and only the number of lengths would grow.
LEAST = 2048
#: One request in so many may be left to the larger context.
OUTLIERS = 100
#: Tokens of the template around all messages (Llama's lines about dates, the system message that Qwen or gpt-oss adds),
#: around each message, and of the template's words about tools.
REQUEST_TOKENS, MESSAGE_TOKENS, TOOLS_TOKENS = 64, 8, 256
#: Tokens of a picture: 256 in Gemma 3, 576 in LLaVA, up to 2880 in its newer kin.
IMAGE_TOKENS = 2880
#: How many times too high an estimate may be. By Llama 3's tokenizer it is 1.2 in German, 1.5 to 1.8 in English, 1.8 in
#: code, 1.4 in Chinese, 2.3 in Russian, 2.9 in Thai; and two thirds of the truth in what is no language (base64, DNA).
DOUBT = 3

#: A text of more bytes is looked at in about so many places: acceptance must not take longer for it.
SAMPLE = 512
#: Bytes that are a token each: digits (Gemma, Qwen) and ASCII's punctuation. Of letters and blanks three are one, which
#: holds from English to German; so of other alphabets' bytes, with more for each character of three bytes (Chinese: 1.3
#: tokens) and of four (emoji: 3).
_SINGLE = bytes(code for code in range(33, 127) if not chr(code).isalpha())
_LEADS_OF_3, _LEADS_OF_4 = bytes(range(0xE0, 0xF0)), bytes(range(0xF0, 0xF8))


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text; never more than it has bytes in UTF-8."""
    raw = text.encode("utf-8", "surrogatepass")
    stride = len(raw) // SAMPLE | 1
    sample = raw[:: stride if stride % 3 else stride + 2]  # neither even nor in threes, as the bytes of characters are
    more = 2 * _count(sample, _SINGLE)
    if not text.isascii():
        more += _count(sample, _LEADS_OF_3) + 5 * _count(sample, _LEADS_OF_4)
    thirds = len(raw) + (more * len(raw) // len(sample) if more else 0)
    return min((thirds + 2) // 3, len(raw))


def _count(raw: bytes, which: bytes) -> int:
    return len(raw) - len(raw.translate(None, which))


class Gauge:
    """What each request of a job needs. What is the same for all of them is reckoned once.

    Args:
        settings: The job's, with `num_ctx_max`.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._settings = settings
        self._most = settings.num_ctx_max or settings.num_ctx
        self._system = self._message_tokens({"content": settings.system}) if settings.system else 0
        around = REQUEST_TOKENS + MESSAGE_TOKENS + self._system + settings.num_predict
        #: What a line with next to no prompt needs, and how many tokens of a prompt that holds.
        self._least = _step(around + 1, self._most)
        self._room = self._least - around

    def step(self, request: Request, size: int) -> int:
        """Return the least of the lengths that holds a request, 0 if it names its own.

        Args:
            size: The bytes of its line.

        Raises:
            TooLongError: If it is too long for the longest, however much too high it is estimated.
        """
        if self._settings.template is not None:  # it may repeat a field, and has text of its own
            size = max(size, len(request.prompt.encode()))
        if size <= self._room and _is_plain(request):  # a text has no more tokens than bytes: nothing to estimate
            return self._least
        if "num_ctx" in request.options:
            return 0
        most = self._settings.num_predict
        answer = 0 if request.kind is Kind.EMBED else whole_option(request.options, "num_predict", most)
        prompt = self.prompt_tokens(request)
        if prompt > DOUBT * self._most:
            raise TooLongError(
                f"too long: its prompt has about {prompt} tokens, and the longest context is {self._most} "
                "([requests] num_ctx_max): shorten it, or raise num_ctx_max if the card has the memory"
            )
        return _step(prompt + answer, self._most)

    def prompt_tokens(self, request: Request) -> int:
        """Estimate the tokens of all that is sent of a request."""
        if request.kind is Kind.EMBED:  # each text is read by itself
            return REQUEST_TOKENS + max(map(text_tokens, request.inputs))
        tokens = REQUEST_TOKENS + sum(map(self._message_tokens, request.messages))
        if request.kind is Kind.COMPLETE:
            tokens += text_tokens(request.prompt) + text_tokens(request.suffix or "")
        if request.system is not None:
            tokens += self._message_tokens({"content": request.system})
        elif not request.messages or request.messages[0]["role"] != "system":
            tokens += self._system
        if request.tools:
            tokens += TOOLS_TOKENS + text_tokens(json.dumps(request.tools))
        return tokens

    @staticmethod
    def _message_tokens(message: Mapping[str, object]) -> int:
        content = message.get("content")
        tokens = MESSAGE_TOKENS + (text_tokens(content) if isinstance(content, str) else 0)
        others = {key: value for key, value in message.items() if key not in ("role", "content")}
        if others:
            pictures = others.pop("images", None)
            tokens += IMAGE_TOKENS * len(pictures) if isinstance(pictures, list) else 0
            tokens += text_tokens(json.dumps(others, ensure_ascii=False)) if others else 0
        return tokens


def _is_plain(request: Request) -> bool:
    """Tell whether a request is one message of text alone and what the job sends with each."""
    is_alone = not (request.options or request.tools or request.system) and len(request.messages) == 1
    return is_alone and "images" not in request.messages[0]


def _step(tokens: int, most: int) -> int:
    """Return the least length that holds so many tokens: a power of two, but at most `most`."""
    return min(most, max(LEAST, 1 << (tokens - 1).bit_length()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPlan:
    """The context lengths of a job's requests, but for those that name their own; in tokens.

    Attributes:
        num_ctx: Of most.
        larger: Of the longest, and of what proves too long for `num_ctx`; the same as that where there is none.
        requests, outliers: How many were planned with the one and with the other.
    """

    num_ctx: int
    larger: int
    requests: int
    outliers: int

    @classmethod
    def of(cls, counts: Mapping[int, int], most: int) -> ContextPlan | None:
        """Choose, or return None where nothing is to be planned.

        Args:
            counts: {length that a request needs: how many need it}, by `Gauge.step`.
            most: The longest there may be.
        """
        total = sum(counts.values())
        if not total:
            return None
        may_be_left = -(-total // OUTLIERS)
        left = total
        for step in sorted(counts):  # at least one is left behind at the last step
            left -= counts[step]
            if left <= may_be_left:
                break
        # Twice as much holds what was estimated too low (see `DOUBT`); no endpoint loads it unless that happens.
        larger = max(counts) if left else min(2 * step, most)
        return cls(num_ctx=step, larger=larger, requests=total - left, outliers=left)

    def length(self, step: int) -> int:
        """Return what a request gets that needs so much."""
        return self.num_ctx if step <= self.num_ctx else self.larger

    def larger_numbers(self, signatures: Sequence[Signature]) -> dict[int, int]:
        """Return `{number of a signature with num_ctx: number of the same with the larger one}`."""
        numbers = {signature: number for number, signature in enumerate(signatures)}
        pairs = (
            (number, numbers.get(key.with_num_ctx(self.larger)))
            for key, number in numbers.items()
            if key.num_ctx == self.num_ctx < self.larger
        )
        return {number: larger for number, larger in pairs if larger is not None}

    def describe(self) -> str:
        """Return e.g. `num_ctx 4096 for 9912 requests, 16384 for 88`."""
        plural = "" if self.requests == 1 else "s"
        rest = f", {self.larger} for {self.outliers}" if self.outliers else ""
        return f"num_ctx {self.num_ctx} for {self.requests} request{plural}{rest}"

    def to_json(self) -> dict[str, int]:
        """Return the plan as it stands in `job.json` and `manifest.json`."""
        return asdict(self)
