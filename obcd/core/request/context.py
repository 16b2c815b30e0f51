"""How long a context the requests of a job need, and which lengths the job gets. Pure.

`num_ctx = "auto"`: the context costs memory on the card, its length times the slots, and Ollama reloads a model for
every other length. So a job gets one length that holds nearly all of its requests, prompt and longest answer, and a
larger one for the longest percent, which are sent in a separate pass. A length is a power of two: then jobs of one
model usually have the same length, and no endpoint reloads it between them. A second pass needs twice the length.

There is no tokenizer here. Tokens are estimated from the bytes of the text, too many rather than too few. The server
counts them again, and refuses a prompt that does not fit (`truncate: false`): then the request gets the larger context.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from obcd.core.request.records import JobSettings, Kind, Request, Signature, whole_option
from obcd.errors import TooLongError

#: The least context, in tokens: below it the model itself takes the memory, and only the number of lengths would grow.
LEAST = 2048
#: One request in this many may be left to the larger context.
OUTLIERS = 100
#: Tokens of the template around all messages (Llama's lines about dates, the system message that Qwen or gpt-oss adds),
#: around each message, and of the template's words about tools.
REQUEST_TOKENS, MESSAGE_TOKENS, TOOLS_TOKENS = 64, 8, 256
#: Tokens of a picture: 256 in Gemma 3, 576 in LLaVA, up to 2880 in its newer versions.
IMAGE_TOKENS = 2880
#: The factor by which an estimate may be too high. By Llama 3's tokenizer it is 1.2 in German, 1.5 to 1.8 in English,
#: 1.8 in code, 1.4 in Chinese, 2.3 in Russian, 2.9 in Thai; for text without language (base64, DNA) it is two thirds.
DOUBT = 3

#: Most bytes of one token: the longest of Llama's and Qwen's vocabularies are runs of 128 blanks.
MOST_TOKEN_BYTES = 256
#: A longer text, in bytes, is sampled in about this many places: acceptance must not take longer for it.
SAMPLE = 512
#: Bytes that are one token each: digits (Gemma, Qwen) and ASCII's punctuation. Three letters or blanks are one token,
#: which holds from English to German. The same holds for bytes of other alphabets, with more tokens for each character
#: of three bytes (Chinese: 1.3 tokens) and of four (emoji: 3).
_SINGLE = bytes(code for code in range(33, 127) if not chr(code).isalpha())
_LEADS_OF_3, _LEADS_OF_4 = bytes(range(0xE0, 0xF0)), bytes(range(0xF0, 0xF8))


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text; never more than it has bytes in UTF-8."""
    raw = text.encode("utf-8", "surrogatepass")
    stride = len(raw) // SAMPLE | 1
    sample = raw[:: stride if stride % 3 else stride + 2]  # neither even nor a multiple of 3, as characters' bytes are
    more = 2 * _count(sample, _SINGLE)
    if not text.isascii():
        more += _count(sample, _LEADS_OF_3) + 5 * _count(sample, _LEADS_OF_4)
    thirds = len(raw) + (more * len(raw) // len(sample) if more else 0)
    return min((thirds + 2) // 3, len(raw))


def _count(raw: bytes, which: bytes) -> int:
    return len(raw) - len(raw.translate(None, which))


class Gauge:
    """The context length that each request of a job needs. Values that all requests share are computed once.

    Args:
        settings: The job's, with `num_ctx_max`.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._settings = settings
        self._most = settings.num_ctx_max or settings.num_ctx
        self._system = self._message_tokens({"content": settings.system}) if settings.system else 0
        around = REQUEST_TOKENS + MESSAGE_TOKENS + self._system + settings.num_predict
        #: The length for a line with almost no prompt, and how many tokens of a prompt that length holds.
        self._least = _step(around + 1, self._most)
        self._room = self._least - around

    def step(self, request: Request, size: int) -> int:
        """Return the least length that holds a request, 0 if the request names its own.

        Args:
            size: The bytes of its line.

        Raises:
            TooLongError: If it is too long for the longest, even if the estimate is as much too high as it can be.
        """
        if self._settings.template is not None:  # it may repeat a field, and has its own text
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
        """Estimate the tokens of everything that is sent for a request."""
        if request.kind is Kind.EMBED:  # each text is read separately
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


def check_text(request: Request, settings: JobSettings) -> None:
    """Refuse a text that fits into no context whatever its tokens are: a server would read megabytes to say the same.

    Raises:
        TooLongError: If it is so long.
    """
    longest = whole_option(request.options, "num_ctx", settings.num_ctx_max or settings.num_ctx)
    texts = request.inputs or (request.prompt, request.suffix or "") if request.kind is not Kind.CHAT else ()
    spoken = (value for message in request.messages for value in message.values() if isinstance(value, str))
    size = max(map(len, texts), default=0) if texts else sum(map(len, spoken))
    if size > longest * MOST_TOKEN_BYTES:
        raise TooLongError(
            f"too long: its text has {size} characters, and a context of {longest} tokens holds fewer: split the text"
        )


def _is_plain(request: Request) -> bool:
    """Return whether a request is one message of text alone and the parts that the job sends with each."""
    is_alone = not (request.options or request.tools or request.system) and len(request.messages) == 1
    return is_alone and "images" not in request.messages[0]


def _step(tokens: int, most: int) -> int:
    """Return the least length that holds this many tokens: a power of two, but at most `most`."""
    return min(most, max(LEAST, 1 << (tokens - 1).bit_length()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPlan:
    """The context lengths of a job's requests, except for those that name their own; in tokens.

    Attributes:
        num_ctx: For most requests.
        larger: For the longest requests, and for those that prove too long for `num_ctx`; equal to it if there is none.
        requests, outliers: How many requests were planned with each of the two.
    """

    num_ctx: int
    larger: int
    requests: int
    outliers: int

    @classmethod
    def of(cls, counts: Mapping[int, int], most: int) -> ContextPlan | None:
        """Choose the lengths, or return None if there is nothing to plan.

        Args:
            counts: {length that a request needs: number of requests that need it}, by `Gauge.step`.
            most: The longest possible length.
        """
        total = sum(counts.values())
        if not total:
            return None
        may_be_left = -(-total // OUTLIERS)
        left = total
        for step in sorted(counts):  # at least one request is left over at the last step
            left -= counts[step]
            if left <= may_be_left:
                break
        # Twice as much holds requests that were estimated too low (see `DOUBT`); it is loaded only if that happens.
        larger = max(counts) if left else min(2 * step, most)
        return cls(num_ctx=step, larger=larger, requests=total - left, outliers=left)

    def length(self, step: int) -> int:
        """Return the length for a request that needs `step`."""
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
        """Return the plan in the form of `job.json` and `manifest.json`."""
        return asdict(self)
