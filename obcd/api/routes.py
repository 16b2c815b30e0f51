"""The routes of the API: Files, Batches and Models, as OpenAI's clients call them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from obcd.api.batches import Batches
from obcd.api.forms.batch_request import parse_batch, parse_count, parse_expiry, parse_object, shown
from obcd.api.forms.identifiers import OUTPUTS
from obcd.api.forms.refusals import SERVER, ApiError, invalid, missing, too_large, unauthorized, unavailable
from obcd.api.forms.upload_form import UploadForm
from obcd.api.token_file import ApiUser, TokenFile
from obcd.api.uploads import Uploads
from obcd.clock import monotonic
from obcd.errors import ObcdError
from obcd.logs.setup import fault_text

logger = logging.getLogger(__name__)

#: Largest body that is JSON, in bytes; what a form has beside its file.
MAX_BODY_BYTES, FORM_BYTES = 2**16, 2**16
#: Requests of one user at once: nobody takes the connections of all.
MOST_AT_ONCE = 16
#: Seconds that a client may be silent in the middle of a body; after so many it must have sent so many bytes for each.
SILENT_SECONDS, LEAST_RATE = 60.0, 1024
#: Seconds for which the rest of a refused body is read: a client that still sends does not see the reply otherwise.
LINGER_SECONDS = 20.0
#: Bytes that are written to the disk at once.
BLOCK_BYTES = 2**20
#: Entries of a page: usual, most.
BATCHES, FILES = (20, 100), (10_000, 10_000)
PURPOSE = "batch"
#: The one part of a file that a client may ask for.
PART = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)

Act = Callable[[Request, ApiUser], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the routes work with.

    Attributes:
        models: The names that lines may use; `since` is when they were read, in Unix seconds.
    """

    tokens: TokenFile
    uploads: Uploads
    batches: Batches
    models: Sequence[str]
    since: int


def make_application(parts: ApiParts) -> Starlette:
    """Return the ASGI application."""
    doors = _Doors(parts)
    routes = [
        Route("/v1/files", doors.opened(doors.create_file), methods=["POST"]),
        Route("/v1/files", doors.opened(doors.list_files), methods=["GET"]),
        Route("/v1/files/{file}", doors.opened(doors.retrieve_file), methods=["GET"]),
        Route("/v1/files/{file}", doors.opened(doors.delete_file), methods=["DELETE"]),
        Route("/v1/files/{file}/content", doors.opened(doors.read_file), methods=["GET"]),
        Route("/v1/batches", doors.opened(doors.create_batch), methods=["POST"]),
        Route("/v1/batches", doors.opened(doors.list_batches), methods=["GET"]),
        Route("/v1/batches/{batch}", doors.opened(doors.retrieve_batch), methods=["GET"]),
        Route("/v1/batches/{batch}/cancel", doors.opened(doors.cancel_batch), methods=["POST"]),
        Route("/v1/models", doors.opened(doors.list_models), methods=["GET"]),
        Route("/v1/models/{model:path}", doors.opened(doors.retrieve_model), methods=["GET"]),
    ]
    application = Starlette(routes=routes, exception_handlers={HTTPException: _on_http_exception})
    application.router.redirect_slashes = False  # it would redirect to whatever name the client says that this is
    return application


async def _on_http_exception(_: Request, error: Exception) -> Response:
    """Answer a request for which there is no route."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    text = "this method is not taken here" if status == 405 else "there is no such address here"
    return _refused(ApiError(status, text))


class _Doors:
    """The acts of the routes, each behind the check of the token."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._uploads, self._batches = parts.uploads, parts.batches
        #: {user: requests at present}
        self._busy: Counter[int] = Counter()

    def opened(self, act: Act) -> Callable[[Request], Awaitable[Response]]:
        """Return an act that is carried out for the user of the token only, and whose faults are OpenAI's errors."""

        async def carry_out(request: Request) -> Response:
            try:
                account = await self._find_account(request)
                self._busy[account.uid] += 1
                try:
                    if self._busy[account.uid] > MOST_AT_ONCE:
                        raise ApiError(
                            429, f"more than {MOST_AT_ONCE} requests at once", kind="rate_limit_error", retry=True
                        )
                    return await act(request, account)
                finally:
                    self._busy[account.uid] -= 1
                    if not self._busy[account.uid]:
                        del self._busy[account.uid]
            except ApiError as error:
                await _linger(request)
                return _refused(error)
            except ClientDisconnect:
                return Response(status_code=499)
            except (OSError, ObcdError) as error:
                logger.warning("a request failed: %s", _told(error), extra={"action": "api_request_failed"})
                await _linger(request)
                return _refused(unavailable("this service has a fault of its disk at present: try again later"))
            except Exception as error:  # noqa: BLE001 - its text may hold what the client sent
                logger.error("a request failed: %s", fault_text(error), extra={"action": "api_bug"})  # noqa: TRY400
                return _refused(ApiError(500, "this service has a fault", kind=SERVER))

        return carry_out

    async def _find_account(self, request: Request) -> ApiUser:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        account = None
        if scheme.lower() == "bearer":
            account = await run_in_threadpool(self._parts.tokens.find, token.strip())
        if account is None:
            raise unauthorized()
        return account

    # --- files ---------------------------------------------------------------------------------------------------

    async def create_file(self, request: Request, account: ApiUser) -> Response:
        announced = _length(request)
        if announced > self._uploads.limits.file_bytes + FORM_BYTES:
            raise too_large(f"a file may have {self._uploads.limits.file_bytes} bytes: split it")
        form = UploadForm(request.headers.get("content-type", ""))
        coming = await run_in_threadpool(self._uploads.begin, account.uid, max(0, announced - FORM_BYTES))
        try:
            waiting = bytearray()
            async for block in _blocks(request):
                waiting += form.feed(block)
                if len(waiting) >= BLOCK_BYTES:
                    await run_in_threadpool(self._uploads.write, coming, bytes(waiting))
                    waiting.clear()
            form.finish()
            if form.fields.get("purpose") != PURPOSE:
                raise invalid('`purpose` must be "batch": nothing else is done with files here', "purpose")
            await run_in_threadpool(self._uploads.write, coming, bytes(waiting))
            if not coming.size:
                raise invalid("the file is empty", "file")
            seconds = _expiry(form.fields)
            stored = await run_in_threadpool(
                self._uploads.commit, coming, form.filename or "", PURPOSE, seconds
            )  # fmt: skip
        finally:
            await run_in_threadpool(self._uploads.give_up, coming)
        return _json(stored.shown())

    async def list_files(self, request: Request, account: ApiUser) -> Response:
        query = request.query_params
        limit = parse_count(query.get("limit"), *FILES)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid('`order` must be "asc" or "desc"', "order")
        found = await run_in_threadpool(self._all_files, account, query.get("purpose"))
        found.sort(key=lambda item: (item["created_at"], item["id"]), reverse=order == "desc")
        after = query.get("after")
        if after is not None:
            places = [place for place, item in enumerate(found) if item["id"] == after]
            if not places:
                raise missing("file", "after")
            found = found[places[0] + 1 :]
        return _page(found[:limit], len(found) > limit)

    def _all_files(self, account: ApiUser, purpose: str | None) -> list[dict[str, Any]]:
        uploaded = (stored.shown() for stored in self._uploads.all_of(account.uid))
        results = (output.facts for output in self._batches.outputs_of(account))
        return [item for item in (*uploaded, *results) if purpose in (None, item["purpose"])]

    async def retrieve_file(self, request: Request, account: ApiUser) -> Response:
        return _json((await run_in_threadpool(self._find_file, account, request.path_params["file"]))[0])

    async def read_file(self, request: Request, account: ApiUser) -> Response:
        facts, path = await run_in_threadpool(self._find_file, account, request.path_params["file"])
        status = await run_in_threadpool(path.stat)
        _check_range(request, status.st_size)
        return FileResponse(path, media_type="application/octet-stream", stat_result=status, filename=facts["filename"])

    def _find_file(self, account: ApiUser, file: str) -> tuple[dict[str, Any], Any]:
        stored = self._uploads.find(account.uid, file)
        if stored is not None:
            return stored.shown(), self._uploads.content_of(account.uid, file)
        output = self._batches.find_output(account, file)
        if output is None:
            raise missing("file")
        return output.facts, output.path

    async def delete_file(self, request: Request, account: ApiUser) -> Response:
        file = request.path_params["file"]
        await run_in_threadpool(self._delete_file, account, file)
        return _json({"id": file, "object": "file", "deleted": True})

    def _delete_file(self, account: ApiUser, file: str) -> None:
        stored = self._uploads.find(account.uid, file)
        if stored is not None:
            self._uploads.delete(account.uid, stored)
        elif file.endswith(tuple(OUTPUTS)):
            self._batches.hide_output(account, file)
        else:
            raise missing("file")

    # --- batches -------------------------------------------------------------------------------------------------

    async def create_batch(self, request: Request, account: ApiUser) -> Response:
        wanted = parse_batch(parse_object(await _body(request)))
        is_repeated = request.headers.get("x-stainless-retry-count", "0") != "0"
        make = partial(self._batches.create, account, wanted, is_repeated=is_repeated)
        return _json(await run_in_threadpool(make))

    async def list_batches(self, request: Request, account: ApiUser) -> Response:
        limit, after = parse_count(request.query_params.get("limit"), *BATCHES), request.query_params.get("after")
        return _page(*await run_in_threadpool(self._batches.page, account, after, limit))

    async def retrieve_batch(self, request: Request, account: ApiUser) -> Response:
        return _json(await run_in_threadpool(self._batches.retrieve, account, request.path_params["batch"]))

    async def cancel_batch(self, request: Request, account: ApiUser) -> Response:
        await _body(request)
        return _json(await run_in_threadpool(self._batches.cancel, account, request.path_params["batch"]))

    # --- models --------------------------------------------------------------------------------------------------

    async def list_models(self, request: Request, account: ApiUser) -> Response:
        return _page([self._model(name) for name in self._parts.models], False)

    async def retrieve_model(self, request: Request, account: ApiUser) -> Response:
        name = request.path_params["model"]
        if name not in self._parts.models:
            raise missing(f"model as {shown(name)}", "model")
        return _json(self._model(name))

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._parts.since, "owned_by": "obcd"}


def _told(error: OSError | ObcdError) -> str:
    return str(error.strerror or fault_text(error)) if isinstance(error, OSError) else str(error)


def _check_range(request: Request, size: int) -> None:
    """Refuse a part that the file does not have, and ignore a header that is not understood (RFC 9110, 14.2).

    Raises:
        ApiError: If there is no such part.
    """
    found = PART.fullmatch(request.headers.get("range", ""))
    first, last = (found[1] or "", found[2] or "") if found else ("", "")
    is_understood = bool(first or last) and (not first or not last or int(first) <= int(last))
    if not is_understood:
        request.scope["headers"] = [item for item in request.scope["headers"] if item[0].lower() != b"range"]
    elif int(first) >= size if first else int(last) == 0:
        raise ApiError(416, f"the file has {size} bytes")


def _length(request: Request) -> int:
    """Return the length that a client announced; 0 if it did not."""
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """Yield the blocks of a body.

    Raises:
        ApiError: If the client is silent for too long, or too slow.
        ClientDisconnect: If it is gone.
    """
    began, count = monotonic(), 0
    while not _is_read(request):
        try:
            message = await asyncio.wait_for(request.receive(), SILENT_SECONDS)
        except TimeoutError:
            raise ApiError(408, f"nothing came for {SILENT_SECONDS:.0f} seconds", retry=True) from None
        if message["type"] != "http.request":
            raise ClientDisconnect
        request.state.is_read = not message.get("more_body")
        block = message.get("body", b"")
        count += len(block)
        yield block
        seconds = monotonic() - began
        if not _is_read(request) and seconds > SILENT_SECONDS and count < LEAST_RATE * seconds:
            raise ApiError(408, f"less than {LEAST_RATE} bytes a second came for {seconds:.0f} seconds", retry=True)


def _is_read(request: Request) -> bool:
    return getattr(request.state, "is_read", False)


async def _body(request: Request) -> bytes:
    raw = bytearray()
    async for block in _blocks(request):
        raw += block
        if len(raw) > MAX_BODY_BYTES:
            raise ApiError(413, f"a body that is no file may have {MAX_BODY_BYTES} bytes")
    return bytes(raw)


async def _linger(request: Request) -> None:
    """Read the rest of a body, for a while: its sender sees the reply only when it has sent all of it."""
    with contextlib.suppress(ApiError, ClientDisconnect, TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):  # also for a sender that is silent
            async for _ in _blocks(request):
                pass


def _expiry(fields: dict[str, str]) -> float | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    return None if anchor is None and seconds is None else parse_expiry(anchor, seconds, "expires_after")


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a reply of ASCII alone: a text of a client may hold half a character, which is not UTF-8."""
    return Response(json.dumps(document).encode(), status, headers, "application/json")


def _page(items: Iterable[dict[str, Any]], has_more: bool) -> Response:
    found = list(items)
    first, last = (found[0]["id"], found[-1]["id"]) if found else (None, None)
    return _json({"object": "list", "data": found, "first_id": first, "last_id": last, "has_more": has_more})


def _refused(error: ApiError) -> Response:
    headers = {} if error.retry else {"x-should-retry": "false"}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _json(error.to_json(), error.status, headers)
