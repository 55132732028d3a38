"""The dashboard: one page that shows the mesh and its jobs, follows them, and gives a few orders.

    GET  /dashboard/?token=T   the page, and a session; the page takes the token out of the address at once
    GET  /dashboard/           the page, for a session; without one a page that says how to get in
    GET  /dashboard/events     what the page shows, then differences as they come (server-sent events)
    GET  /dashboard/log        what a task prints, as it comes; needs the session's key
    GET  /dashboard/why        why a member is reached as it is, or a job is where it is
    POST /dashboard/orders     cancel, retry, pause, drain; needs the session's key
    GET  /dashboard/NAME       its style and scripts, the only ones that a browser will run on it

What is shown is a value (``runtime.board``); each page is sent what is different from what it was sent
before. A page that reads slowly is sent the newest state when it reads on, so nothing piles up.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshpeer.adapters.web.access import PATH, SESSION_S, Access, order_refusal, refusal
from meshpeer.adapters.web.following import FOLLOWED_MAX, STREAMS_MAX, Stream, log_events, view_events
from meshpeer.adapters.web.markup import closed_page, file, page
from meshpeer.core.errors import MeshpeerError
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.board import Order, View
from meshpeer.runtime.control import LogPiece, Why
from meshpeer.runtime.job_docs import JobWhy

KEY_HEADER = "x-meshpeer-key"
ORDER_BYTES_MAX = 64 * 1024
ORDER_S = 10.0
"""How long the body of an order may take to come."""
ORDERS_MAX = 8
"""Orders and questions that are worked on at once."""
NAME_LETTERS_MAX = 300
"""Of a job, a task or a member in a query."""
FILES = {
    "style.css": "text/css",
    **dict.fromkeys(
        (
            "main.js",
            "state.js",
            "dom.js",
            "actions.js",
            "mesh.js",
            "map.js",
            "jobs.js",
            "graph.js",
            "tasks.js",
            "timeline.js",
            "log.js",
            "story.js",
        ),
        "text/javascript",
    ),
}
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


class Board(Protocol):
    """What the dashboard shows, and whom it gives orders to. All but ``view`` raise ``MeshpeerError``."""

    async def view(self, job: str, *, narrow: bool) -> View: ...

    async def log(self, job: str, task: str, stream: str, offset: int, attempt: int) -> LogPiece:
        """Returns what there is from ``offset`` on; waits a while for more."""
        ...

    async def why_member(self, name: str) -> Why: ...

    async def why_job(self, job: str, task: str) -> JobWhy: ...

    async def order(self, order: Order) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """What the page is made of."""

    access: Access
    board: Board


def dashboard_routes(dashboard: Dashboard) -> list[Route]:
    """Returns the routes of the dashboard."""
    access, board = dashboard.access, dashboard.board
    following, reading = trio.CapacityLimiter(STREAMS_MAX), trio.CapacityLimiter(FOLLOWED_MAX)
    working = trio.CapacityLimiter(ORDERS_MAX)

    async def whole(request: Request) -> Response:
        port, cookies = _port(request), request.headers.get("cookie", "")
        token, session = request.query_params.get("token"), access.session_of(cookies, port)
        if token is not None:
            known = access.exchange(token, session)
            if known is None and session is None:
                return _html(closed_page(), 401)
            if known is not None:
                answer = _html(page(access.key_of(known)), 200)
                answer.set_cookie(
                    access.cookie_name(port),
                    known,
                    max_age=int(SESSION_S),
                    path=PATH,
                    httponly=True,
                    samesite="strict",
                )
                return answer
        return _html(closed_page(), 401) if session is None else _html(page(None), 200)

    async def events(request: Request) -> Response:
        if not _admitted(request):
            return _refused(401, "open the link of `meshpeer dashboard`")
        job = request.query_params.get("job", "")[:NAME_LETTERS_MAX]
        narrow = "narrow" in request.query_params
        return _followed(
            request,
            following,
            lambda: view_events(lambda: board.view(job, narrow=narrow), lambda: _admitted(request)),
        )

    async def log(request: Request) -> Response:
        if not _may_order(request):
            return _keyless()
        query = _query(request, "job", "task", "stream")
        offset = request.query_params.get("from", "0")
        start = int(offset) if offset.isascii() and offset.isdigit() and len(offset) < 16 else 0

        async def read(at: int, attempt: int) -> LogPiece:
            return await board.log(query["job"], query["task"], query["stream"], at, attempt)

        return _followed(request, reading, lambda: log_events(read, start, lambda: _may_order(request)))

    async def why(request: Request) -> Response:
        if not _may_order(request):
            return _keyless()
        query = _query(request, "to", "job", "task")

        async def ask() -> object:
            return await (
                board.why_member(query["to"]) if query["to"] else board.why_job(query["job"], query["task"])
            )

        return await _worked(working, ask)

    async def orders(request: Request) -> Response:
        refused = order_refusal(dict(request.headers.items()))
        if refused is not None:
            return _refused(*refused)
        if not _may_order(request):
            return _keyless()
        body = await _body(request)
        if body is None:
            return _refused(
                413, f"an order has at most {ORDER_BYTES_MAX} bytes, and comes within {ORDER_S:g} s"
            )
        try:
            order = msgspec.json.decode(body, type=Order)
        except UNREADABLE:
            return _refused(400, "this is no order")

        async def obey() -> object:
            return {"said": await board.order(order)}

        return await _worked(working, obey)

    async def own_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return _refused(404, "there is nothing of that name")
        return Response(file(name), headers=HEADERS, media_type=FILES[name])

    def _admitted(request: Request) -> bool:
        return access.admits(request.headers.get("cookie", ""), _port(request))

    def _may_order(request: Request) -> bool:
        key = request.headers.get(KEY_HEADER, "")
        return access.may_order(request.headers.get("cookie", ""), _port(request), key)

    return [
        Route(PATH, _guarded(whole, top_level=True), methods=["GET"]),
        Route(f"{PATH}events", _guarded(events), methods=["GET"]),
        Route(f"{PATH}log", _guarded(log), methods=["GET"]),
        Route(f"{PATH}why", _guarded(why), methods=["GET"]),
        Route(f"{PATH}orders", _guarded(orders), methods=["POST"]),
        Route(f"{PATH}{{name}}", _guarded(own_file), methods=["GET"]),
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


def _query(request: Request, *names: str) -> Mapping[str, str]:
    return {name: request.query_params.get(name, "")[:NAME_LETTERS_MAX] for name in names}


def _followed(
    request: Request, places: trio.CapacityLimiter, events: Callable[[], AsyncGenerator[bytes, None]]
) -> Response:
    """Returns a stream where there is a place for one more."""
    try:
        places.acquire_on_behalf_of_nowait(request)
    except trio.WouldBlock:
        return _refused(503, f"{places.total_tokens:.0f} pages follow already")
    return Stream(events(), lambda: places.release_on_behalf_of(request), HEADERS)


async def _worked(places: trio.CapacityLimiter, work: Callable[[], Awaitable[object]]) -> Response:
    """Returns what work came to, or why it came to nothing; one of few at once."""
    try:
        places.acquire_nowait()
    except trio.WouldBlock:
        return _refused(503, "too much is asked at once: try again in a moment")
    try:
        document, status = await work(), 200
    except MeshpeerError as fault:
        document, status = {"error": fault.what, "hint": fault.hint}, 409
    finally:
        places.release()
    return Response(
        msgspec.json.encode(document), status_code=status, headers=HEADERS, media_type="application/json"
    )


async def _body(request: Request) -> bytes | None:
    """Reads the body of an order; None where it is too long, or comes too slowly."""
    body = bytearray()
    with trio.move_on_after(ORDER_S) as timer:
        stream = request.stream()
        async for piece in stream:
            body += piece
            if len(body) > ORDER_BYTES_MAX:
                await stream.aclose()
                return None
    return None if timer.cancelled_caught else bytes(body)


def _keyless() -> Response:
    return _refused(403, "open the link of `meshpeer dashboard` in this tab: without it one can only look")


def _html(text: str, status: int) -> Response:
    return Response(text, status_code=status, headers=HEADERS, media_type="text/html")


def _refused(status: int, why: str) -> Response:
    return Response(f"{why}\n", status_code=status, headers=HEADERS, media_type="text/plain")
