"""Serves this machine's own pages on 127.0.0.1, with the server that the control socket has already loaded:
figures, where services call back, and the dashboard.

Anybody on this machine may read the figures, so they hold nothing that is secret. A
name other than loopback's in ``Host`` is refused: without that a page in a browser could read them under a
name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import hypercorn.config
import hypercorn.trio
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from trio import TaskStatus

from meshpeer.adapters.web.callbacks import Receive, callback_route
from meshpeer.adapters.web.dashboard import Dashboard, dashboard_routes
from meshpeer.adapters.web.snapshot import Snapshot
from meshpeer.core.errors import EnvironmentFault
from meshpeer.runtime.webhooks import CALLBACK_PATH

LOOPBACK = "127.0.0.1"
BACKLOG = 128
REQUEST_BYTES_MAX = 16 * 1024
FIGURE_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
HOSTS = (LOOPBACK, "localhost", "localhost.localdomain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is served."""

    look: Callable[[], Snapshot]
    """Called once per request of the figures."""
    receive: Receive
    dashboard: Dashboard
    callback_hosts: tuple[str, ...] = ()
    """Names, beside loopback's, under which a proxy of this machine passes call-backs on."""


async def serve_pages(
    site: Site, port: int, *, task_status: TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until cancelled, and reports its port (0 picks one); raises ``EnvironmentFault`` where the
    port can't be had, with nothing started.
    """
    listener = _listen(port)
    got = int(listener.getsockname()[1])
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 1
    config.h11_max_incomplete_size = REQUEST_BYTES_MAX
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, _application(site), config)
        task_status.started(got)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise EnvironmentFault(
            f"no /metrics and no call-backs: port {port} of {LOOPBACK} can't be had: {error.strerror}",
            "give another web_port under [control], or 0 for none",
        ) from error
    return listener


async def _serve(
    application: Starlette, config: hypercorn.config.Config, *, task_status: TaskStatus[list[str]]
) -> None:
    await hypercorn.trio.serve(application, config, task_status=task_status)  # type: ignore[arg-type]


def _application(site: Site) -> Starlette:
    async def metrics(request: Request) -> Response:
        # A megabyte that an agent without a scraper need not hold.
        from meshpeer.adapters.web.page import render

        page, kind = render(site.look(), request.headers.get("accept", ""))
        return Response(page, headers={"content-type": kind, **FIGURE_HEADERS})

    application = Starlette(
        routes=[
            Route("/metrics", metrics, methods=["GET"], middleware=_under(HOSTS)),
            Route(
                f"{CALLBACK_PATH}{{token}}",
                callback_route(site.receive),
                methods=["POST"],
                middleware=_under((*HOSTS, *site.callback_hosts)),
            ),
            *dashboard_routes(site.dashboard),
        ]
    )
    # It would put what was asked, as it is and checked by nothing, into the address that it sends people to.
    application.router.redirect_slashes = False
    return application


def _under(hosts: Sequence[str]) -> list[Middleware]:
    return [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)]
