"""What the API answers a request that it does not carry out: a status and OpenAI's error object."""

from __future__ import annotations

from obcd.errors import ObcdError

INVALID, SERVER, LIMIT = "invalid_request_error", "server_error", "rate_limit_error"


class ApiError(ObcdError):
    """A request cannot be carried out.

    Args:
        param: The parameter at fault; None if it is none.
        retry: Whether the same request may succeed in a moment: OpenAI's clients ask again by themselves then.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = INVALID, code: str | None = None, param: str | None = None,
        retry: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.kind, self.code, self.param, self.retry = kind, code, param, retry

    def to_json(self) -> dict[str, object]:
        """Return OpenAI's error object."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def unauthorized() -> ApiError:
    """Return the refusal of a request without a valid token; it does not say what is wrong with the token."""
    return ApiError(
        401, "this token is not known: send `Authorization: Bearer TOKEN` with one from the administrator",
        code="invalid_api_key",
    )  # fmt: skip


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the refusal of a request with a fault."""
    return ApiError(400, message, param=param, code=code)


def missing(what: str, param: str | None = "id") -> ApiError:
    """Return that something does not exist, or is another user's: both look alike."""
    return ApiError(404, f"there is no such {what}", param=param)


def too_large(message: str) -> ApiError:
    """Return the refusal of a body that is too long."""
    return ApiError(413, message, param="file")


def over_quota(message: str) -> ApiError:
    """Return that a user has used up what is allowed; OpenAI's clients must not ask again by themselves."""
    return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota")


def unavailable(message: str) -> ApiError:
    """Return that the machine cannot carry the request out at present."""
    return ApiError(503, message, kind=SERVER, retry=True)
