"""The dashboard: one page that shows what ``status``, ``peers`` and ``jobs list`` print, and follows it.

    GET /dashboard/?token=T    the page, and a session; the page takes the token out of the address at once
    GET /dashboard/            the page, for a session; without one a page that says how to get in
    GET /dashboard/events      its inner part anew whenever it changed (server-sent events, WHATWG HTML 9.2)
    GET /dashboard/NAME        its style and script, the only ones that a browser will run on it

It takes no orders. What others wrote (names, warnings) is text on it, never markup.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meshpeer.adapters.web.access import PATH, SESSION_S, Access, refusal
from meshpeer.adapters.web.markup import closed_page, content, page
from meshpeer.runtime.control import Job, Peer, Status

LOOK_S = 1.0
"""How often it is looked whether there is something new."""
KEEP_ALIVE_S = 15.0
STREAMS_MAX = 16
"""Pages that follow at once."""
_FILES = {"style.css": "text/css", "script.js": "text/javascript"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Views(Protocol):
    """What the dashboard shows, as the control API has it."""

    async def status(self) -> Status: ...

    async def peers(self) -> list[Peer]: ...

    async def jobs(self) -> list[Job]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """What the page is made of."""

    access: Access
    views: Views


def dashboard_routes(board: Dashboard) -> list[Route]:
    """Returns the routes of the dashboard."""
    following = trio.CapacityLimiter(STREAMS_MAX)

    async def look() -> str:
        return content(await board.views.status(), await board.views.peers(), await board.views.jobs())

    async def whole(request: Request) -> Response:
        port = _port(request)
        token = request.query_params.get("token")
        session = board.access.exchange(token) if token is not None else None
        if session is None and not board.access.admits(request.headers.get("cookie", ""), port):
            return _html(closed_page(), 401)
        answer = _html(page(await look()), 200)
        if session is not None:
            answer.set_cookie(
                board.access.cookie_name(port),
                session,
                max_age=int(SESSION_S),
                path=PATH,
                httponly=True,
                samesite="strict",
            )
        return answer

    async def events(request: Request) -> Response:
        if not board.access.admits(request.headers.get("cookie", ""), _port(request)):
            return _refused(401, "open the link of `meshpeer dashboard`")
        try:
            following.acquire_on_behalf_of_nowait(request)
        except trio.WouldBlock:
            return _refused(503, f"{STREAMS_MAX} pages follow already")

        def admitted() -> bool:
            return board.access.admits(request.headers.get("cookie", ""), _port(request))

        return _Stream(_changes(look, admitted), lambda: following.release_on_behalf_of(request))

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            return _refused(404, "there is nothing of that name")
        text = resources.files("meshpeer.adapters.web").joinpath("static", name).read_text("utf-8")
        return Response(text, headers=HEADERS, media_type=_FILES[name])

    return [
        Route(PATH, _guarded(whole, top_level=True), methods=["GET"]),
        Route(f"{PATH}events", _guarded(events), methods=["GET"]),
        Route(f"{PATH}{{name}}", _guarded(file), methods=["GET"]),
    ]


Handler = Callable[[Request], Awaitable[Response]]


def _guarded(handler: Handler, *, top_level: bool = False) -> Handler:
    async def guarded(request: Request) -> Response:
        refused = refusal(dict(request.headers.items()), _port(request), top_level=top_level)
        return _refused(*refused) if refused is not None else await handler(request)

    return guarded


def _port(request: Request) -> int:
    """Returns the port that this request came to, whatever it says."""
    server = request.scope.get("server")
    return int(server[1]) if server else 0


async def _changes(
    look: Callable[[], Awaitable[str]], admitted: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yields the page's inner part whenever it is another one, until the session ends."""
    last, quiet_s = "", 0.0
    while admitted():
        present = await look()
        if present != last:
            last, quiet_s = present, 0.0
            yield b"data: " + json.dumps(present).encode("utf-8") + b"\n\n"
        elif quiet_s >= KEEP_ALIVE_S:
            quiet_s = 0.0
            yield b": still here\n\n"
        await trio.sleep(LOOK_S)
        quiet_s += LOOK_S


class _Stream(StreamingResponse):
    """A stream that gives its place back in the task that it runs in, however it ends."""

    def __init__(self, changes: AsyncGenerator[bytes, None], done: Callable[[], None]) -> None:
        self._changes = changes
        self._done = done
        super().__init__(changes, headers=HEADERS, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()
            with trio.CancelScope(shield=True):
                await self._changes.aclose()


def _html(text: str, status: int) -> Response:
    return Response(text, status_code=status, headers=HEADERS, media_type="text/html")


def _refused(status: int, why: str) -> Response:
    return Response(f"{why}\n", status_code=status, headers=HEADERS, media_type="text/plain")
