"""Sends webhooks with httpx, which is loaded when the first is sent: a node without any has none of it.

It takes nothing from the environment (a proxy of somebody's shell is no business of a job), follows no
redirect and asks for no compression, so that what comes is no larger than what is read. Waiting for an answer
has no bound here: a service that answers at once may work for hours, and the scheduler says when it is
enough.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.webhooks import HttpAnswer

if TYPE_CHECKING:
    import httpx

CONNECT_S, SEND_S = 10.0, 30.0
REASON_BYTES_MAX = 4 * 1024
"""What is read of an answer that is no success."""
CLOSE_S = 2.0


class HttpCaller:
    """Implements ``runtime.webhooks.Caller``."""

    def __init__(self) -> None:
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, bytes_max: int) -> HttpAnswer:
        """Sends one POST; raises ``EnvironmentFault`` where no answer comes."""
        import httpx

        client = self._client(url.partition(":")[0])
        try:
            sent = {**headers, "accept-encoding": "identity", "accept": "application/json, */*"}
            async with client.stream("POST", url, content=body, headers=sent) as response:
                most = bytes_max if response.is_success else REASON_BYTES_MAX
                content, whole = await _read(response, most)
                return HttpAnswer(
                    status=response.status_code,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=content,
                    error=_fault(response, whole, most) if response.is_success else "",
                )
        except httpx.HTTPError as error:
            raise EnvironmentFault(_words(error), "is the service up?") from error
        except UnicodeError as error:
            # A name that IDNA can't encode, which httpx does not turn into an error of its own.
            raise EnvironmentFault("no connection: the service's host is no name", "mend its URL") from error
        except (httpx.InvalidURL, httpx.StreamError, ValueError) as error:
            raise EnvironmentFault(f"the service's answer can't be read: {error}") from error

    async def close(self) -> None:
        """Closes what connections are kept."""
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
            for client in self._clients.values():
                await client.aclose()
        self._clients.clear()

    def _client(self, scheme: str) -> httpx.AsyncClient:
        client = self._clients.get(scheme)
        if client is None:
            import httpx

            # Certificates of the world take megabytes, and plain HTTP has no use for them.
            verify: ssl.SSLContext | bool = ssl.create_default_context() if scheme == "https" else False
            client = self._clients[scheme] = httpx.AsyncClient(
                verify=verify,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=CONNECT_S, write=SEND_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=2.0),
            )
        return client


async def _read(response: httpx.Response, bytes_max: int) -> tuple[bytes, bool]:
    """Reads a body up to a bound; says whether that was all of it."""
    import httpx

    content = bytearray()
    whole = True
    try:
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > bytes_max:
                # Left half-way, httpx's own generators would end at the collector's whim; closed, they end by
                # an error of their own.
                whole = False
                await response.aclose()
    except (httpx.HTTPError, httpx.StreamError):
        if whole:
            raise
    return bytes(content[:bytes_max]), whole


def _fault(response: httpx.Response, whole: bool, bytes_max: int) -> str:
    if response.headers.get("content-encoding", "identity") != "identity":
        return "the service's answer is compressed, and nobody asked for that"
    return "" if whole else f"the service's answer is larger than {bytes_max:,} bytes"


def _words(error: httpx.HTTPError) -> str:
    import httpx

    try:
        at = f"{error.request.url.host}:{error.request.url.port or error.request.url.scheme}"
    except RuntimeError:
        at = "the service"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"no connection to {at}"
    return f"the connection to {at} broke: {type(error).__name__}"
