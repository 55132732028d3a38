"""``POST /v1/callbacks/TOKEN``: where services that this node called say how it ended.

The token in the address authorises, and with a secret the signature does, too. A page in a browser has
neither; it is kept out all the same, before anything else is looked at: a body that is not called JSON (a
form can send three other kinds), and any request that a browser says a page has made (Fetch Metadata, W3C;
``Origin``, RFC 6454). No header ever lets another origin read an answer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping

import trio
from starlette.requests import Request
from starlette.responses import Response

from meshpeer.core.jobs.callbacks import CALLBACK_BYTES_MAX

Receive = Callable[[str, Mapping[str, str], bytes], Awaitable[tuple[int, str]]]
"""Takes a token, headers by their names in lower case, and a body; returns a status, and why."""
BODIES_AT_ONCE_MAX = 32
"""Call-backs whose bodies are held at once; more wait."""
BODY_S = 30.0
"""How long a body may take to come."""
_BROWSERS = ("origin", "sec-fetch-site", "sec-fetch-mode")


def callback_route(receive: Receive) -> Callable[[Request], Awaitable[Response]]:
    """Returns the handler of call-backs."""
    limiter = trio.CapacityLimiter(BODIES_AT_ONCE_MAX)

    async def callback(request: Request) -> Response:
        if any(name in request.headers for name in _BROWSERS):
            return _answer(403, "a page in a browser has no call-back to make")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _answer(415, "send application/json")
        async with limiter:
            body = b""
            with trio.move_on_after(BODY_S) as timer:
                read = await _body(request)
                if read is None:
                    return _answer(413, f"a call-back has at most {CALLBACK_BYTES_MAX} bytes")
                body = read
            if timer.cancelled_caught:
                return _answer(408, f"the body took longer than {BODY_S:g} s")
            headers = dict(request.headers.items())
            return _answer(*await receive(request.path_params["token"], headers, body))

    return callback


async def _body(request: Request) -> bytes | None:
    """Reads a body; returns None once it is longer than a call-back may be."""
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > CALLBACK_BYTES_MAX:
                return None
    return bytes(body)


def _answer(status: int, why: str) -> Response:
    document = {"kept": True} if status == 200 else {"error": why}
    return Response(
        json.dumps(document),
        status_code=status,
        headers={
            "content-type": "application/json",
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        },
    )
