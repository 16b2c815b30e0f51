"""The ASGI application: a few addresses, each of which answers from memory.

    /               the page, complete without script                 /state.json    what changes, for the script
    /static/NAME    style and script, for a year                      /history.json  the points of the plots
    /metrics        the metrics for Prometheus

What was made of one state is kept until the next one, so that many visitors cost what one costs.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from obcd.core.markup import Markup
from obcd.metrics.samples import CONTENT_TYPE, exposition
from obcd.page.content import Privacy, sections, time_of, title
from obcd.page.document import document
from obcd.page.plots import PlotSource, PlotSpan, columns, show_plots
from obcd.page.static_files import PREFIX, StaticFiles
from obcd.page.status_source import SeenStatus, StatusCondition, StatusSource
from obcd.serving.allowed_hosts import AllowedHosts
from obcd.serving.door import Application, Door, is_local
from obcd.spool.folders.layout import Layout

#: Nothing is loaded from elsewhere, framed, or sent; scripts cannot put text into the page as markup, except ours.
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types obcd"
)
HEADERS = ((b"content-security-policy", POLICY.encode()),)
#: Bytes from which a reply is packed.
LEAST_PACKED = 500


@dataclass(frozen=True, slots=True)
class PageReply:
    """A reply of one moment, plain and packed, with the tag by which a browser asks whether it is still the same."""

    kind: str
    plain: bytes
    packed: bytes
    etag: str

    @classmethod
    def of(cls, kind: str, text: str) -> PageReply:
        """Make a reply from its text."""
        plain = text.encode("utf-8", "backslashreplace")
        packed = gzip.compress(plain, 5, mtime=0) if len(plain) >= LEAST_PACKED else b""
        return cls(kind, plain, packed, f'W/"{hashlib.sha256(plain).hexdigest()[:20]}"')


class PageApplication:
    """Everything that the page shows.

    Args:
        layout: The folders of the spool.
        show_names: Whether names of jobs and submitters are shown at all.
    """

    def __init__(self, layout: Layout, *, show_names: bool = True) -> None:
        self._show_names, self._per_user = show_names, layout.per_user
        self._plots = PlotSource(layout.root)
        self._status = StatusSource(layout, self._plots.last_time)
        self._place, self._root = socket.gethostname(), str(layout.root)
        self._files = StaticFiles()
        #: {what a reply is: (what it was made from, the reply)}
        self._kept: dict[tuple[str, ...], tuple[tuple[object, ...], PageReply]] = {}

    def app(self, hosts: AllowedHosts) -> Application:
        """Return the application behind its door."""
        routes = [
            Route("/", self.page),
            Route("/state.json", self.state),
            Route("/history.json", self.history),
            Route("/metrics", self.metrics),
            Route(PREFIX + "{name}", self.static),
        ]
        inner = Starlette(routes=routes, exception_handlers={404: _not_found, 500: _failed})
        inner.router.redirect_slashes = False
        return Door(inner, hosts, headers=HEADERS)

    async def page(self, request: Request) -> Response:
        """Answer with the whole page."""
        seen, span = await self._look(), _span_of(request)
        privacy = self._privacy_of(request, seen)
        points = await asyncio.to_thread(self._plots.points, span)

        def make() -> PageReply:
            parts = {**sections(seen, privacy), "plots": show_plots(points, span)}
            place = f"{self._place}:{self._root}" if privacy is Privacy.NAMES else self._place
            moment = time_of(seen.since) if seen.since is not None else Markup("now")
            return PageReply.of(
                "text/html; charset=utf-8", document(title(seen), place, parts, moment, span, self._files)
            )

        return _answer(request, self._keep(("page", privacy, span), (seen, points), make))

    async def state(self, request: Request) -> Response:
        """Answer with the sections that changed, as markup that this server made."""
        seen = await self._look()
        privacy = self._privacy_of(request, seen)

        def make() -> PageReply:
            content = {"format": 1, "title": title(seen), "sections": sections(seen, privacy)}
            return PageReply.of("application/json; charset=utf-8", json.dumps(content, ensure_ascii=False))

        return _answer(request, self._keep(("state", privacy), (seen,), make))

    async def history(self, request: Request) -> Response:
        """Answer with the points of the plots in columns."""
        span = _span_of(request)
        points = await asyncio.to_thread(self._plots.points, span)

        def make() -> PageReply:
            content = {"format": 1, "span": span, "columns": columns(points)}
            return PageReply.of("application/json; charset=utf-8", json.dumps(content))

        return _answer(request, self._keep(("history", span), (points,), make))

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics for Prometheus, which name no job and no user."""
        seen = await self._look()

        def make() -> PageReply:
            view = seen.view if seen.condition is StatusCondition.LIVE else None
            return PageReply.of(CONTENT_TYPE, exposition(view).decode())

        return _answer(request, self._keep(("metrics",), (seen,), make))

    async def static(self, request: Request) -> Response:
        """Answer with style or script; their names change with their content, so they are kept for a year."""
        file = self._files.find(request.path_params["name"])
        if file is None:
            return await _not_found(request, None)
        return _pack(request, PageReply(file.kind, file.plain, file.packed, ""), "public, max-age=31536000, immutable")

    async def _look(self) -> SeenStatus:
        return await asyncio.to_thread(self._status.look)

    def _privacy_of(self, request: Request, seen: SeenStatus) -> Privacy:
        """Return what a visitor may see: names of a spool with `per_user` only by the socket of its group."""
        is_per_user = self._per_user or (seen.view is not None and seen.view.per_user)
        is_open = is_local(request.scope) or not is_per_user
        return Privacy.NAMES if self._show_names and is_open else Privacy.COUNTS

    def _keep(self, key: tuple[str, ...], sources: tuple[object, ...], make: Callable[[], PageReply]) -> PageReply:
        """Return what was made from the same values, else make it."""
        known = self._kept.get(key)
        if known is not None and all(one is two for one, two in zip(known[0], sources, strict=True)):
            return known[1]
        reply = make()
        self._kept[key] = sources, reply
        return reply


def _span_of(request: Request) -> PlotSpan:
    try:
        return PlotSpan(request.query_params.get("span", PlotSpan.HOUR))
    except ValueError:
        return PlotSpan.HOUR


def _answer(request: Request, reply: PageReply) -> Response:
    """Return a reply that the browser has to confirm each time, or that it is still the same."""
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    if reply.etag in known:
        return Response(
            status_code=304, headers={"etag": reply.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        )
    return _pack(request, reply, "no-cache")


def _pack(request: Request, reply: PageReply, caching: str) -> Response:
    headers = {"cache-control": caching, "vary": "accept-encoding"} | ({"etag": reply.etag} if reply.etag else {})
    if reply.packed and "gzip" in request.headers.get("accept-encoding", ""):
        return _typed(reply.packed, reply.kind, headers | {"content-encoding": "gzip"})
    return _typed(reply.plain, reply.kind, headers)


def _typed(body: bytes, kind: str, headers: dict[str, str]) -> Response:
    return Response(body, headers={**headers, "content-type": kind})


async def _not_found(request: Request, error: Exception | None) -> Response:
    return PlainTextResponse("there is nothing at this address\n", 404)


async def _failed(request: Request, error: Exception) -> Response:
    return PlainTextResponse("the page failed here: see the journal of obcd-page\n", 500)
