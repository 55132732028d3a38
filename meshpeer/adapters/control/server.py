"""Serves the control API with Starlette and Hypercorn on trio. Every route is listed in ``_routes``; handlers only translate."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import hypercorn.config
import hypercorn.trio
import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, NotRunning, PeerFault, Refused
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import ControlApi, InviteRequest, Submission

SUBMISSION_BYTES_MAX = 64 * 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]


async def serve_control(
    api: ControlApi, path: Path, *, group: str = "", task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until cancelled; raises ``EnvironmentFault`` where the socket can't be made, or another agent answers there."""
    _clear_stale(path)
    config = hypercorn.config.Config()
    config.bind = [f"unix:{path}"]
    config.umask = 0o177
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 1
    config.h11_max_incomplete_size = 64 * 1024
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, _application(api), config)
            if group:
                _hand_to_group(path, group)
            task_status.started()
    except OSError as error:
        raise EnvironmentFault(f"the control socket {path} can't be made: {error.strerror}", "name another folder with --run-dir") from error
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


async def _serve(application: Starlette, config: hypercorn.config.Config, *, task_status: trio.TaskStatus[None]) -> None:
    await hypercorn.trio.serve(application, config, task_status=task_status)  # type: ignore[arg-type]


def _clear_stale(path: Path) -> None:
    """Removes a socket that nobody answers; refuses one that somebody does."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise EnvironmentFault(f"another agent answers on {path}", "see `meshpeer status`, or name another folder with --run-dir")


def _hand_to_group(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(path, 0o660)
    except (KeyError, OSError) as error:
        raise EnvironmentFault(f"the control socket can't be given to the group {group}: {error}", "check socket_group under [control]") from error


def _application(api: ControlApi) -> Starlette:
    return Starlette(routes=_routes(api), exception_handlers={MeshpeerError: _on_fault})


def _routes(api: ControlApi) -> list[Route]:
    async def status(_: Request) -> Response:
        return _json(await api.status())

    async def peers(_: Request) -> Response:
        return _json(await api.peers())

    async def plan(_: Request) -> Response:
        return _json(await api.plan())

    async def export_wg_quick(_: Request) -> Response:
        return PlainTextResponse(await api.export_wg_quick())

    async def invite(request: Request) -> Response:
        return _json(await api.invite(_read(await request.body(), InviteRequest)))

    async def ping(request: Request) -> Response:
        return _json(await api.ping(request.query_params.get("node", ""), _count(request, "count", 3)))

    async def stop(request: Request) -> Response:
        return _json({"said": await api.stop(take_down=_flag(request, "down"))})

    async def leave(request: Request) -> Response:
        return _json({"said": await api.leave(force=_flag(request, "force"))})

    async def blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        if request.method == "HEAD":
            return Response(status_code=200 if await api.has_blob(digest) else 404)
        await api.put_blob(digest, int(request.headers.get("content-length", "0")), request.stream())
        return _json({"stored": digest})

    async def jobs(request: Request) -> Response:
        if request.method == "POST":
            return _json(await api.submit(cbor.decode(await request.body(), Submission, bytes_max=SUBMISSION_BYTES_MAX)))
        return _json(await api.jobs())

    async def job(request: Request) -> Response:
        return _json(await api.job(request.path_params["job"]))

    async def tasks(request: Request) -> Response:
        return _json(await api.tasks(request.path_params["job"]))

    async def outputs(request: Request) -> Response:
        return _json(await api.outputs(request.path_params["job"], request.query_params.get("task", "")))

    async def output(request: Request) -> Response:
        query = request.query_params
        return await _stream(api.get_output(request.path_params["job"], query.get("task", ""), query.get("path", "")), "application/octet-stream")

    async def log(request: Request) -> Response:
        query = request.query_params
        piece = await api.log(
            request.path_params["job"], query.get("task", ""), query.get("stream", "stdout"), _count(request, "offset", 0), _flag(request, "wait")
        )
        return _json(piece)

    async def watch(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            async for one in api.watch(request.path_params["job"]):
                yield msgspec.json.encode(one) + b"\n"

        return await _stream(lines(), "application/x-ndjson")

    async def cancel(request: Request) -> Response:
        return _json(await api.cancel(request.path_params["job"]))

    table: list[tuple[str, str, Handler]] = [
        ("GET", "/v1/status", status),
        ("GET", "/v1/peers", peers),
        ("GET", "/v1/plan", plan),
        ("GET", "/v1/export/wg-quick", export_wg_quick),
        ("POST", "/v1/invites", invite),
        ("POST", "/v1/ping", ping),
        ("POST", "/v1/stop", stop),
        ("POST", "/v1/leave", leave),
        ("HEAD PUT", "/v1/blobs/{digest}", blob),
        ("GET POST", "/v1/jobs", jobs),
        ("GET", "/v1/jobs/{job}", job),
        ("GET", "/v1/jobs/{job}/tasks", tasks),
        ("GET", "/v1/jobs/{job}/outputs", outputs),
        ("GET", "/v1/jobs/{job}/output", output),
        ("GET", "/v1/jobs/{job}/log", log),
        ("GET", "/v1/jobs/{job}/watch", watch),
        ("POST", "/v1/jobs/{job}/cancel", cancel),
    ]
    return [Route(path, handler, methods=methods.split()) for methods, path, handler in table]


async def _stream(pieces: AsyncIterator[bytes], kind: str) -> Response:
    """Answers with a stream whose first piece is awaited here, so that a fault still becomes a proper answer."""
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        return Response(b"", media_type=kind)

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(rest(), media_type=kind)


async def _on_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, MeshpeerError)
    code = {LocalFault: 400, Refused: 403, NotRunning: 503, PeerFault: 400}.get(type(error), 500)
    document = {"error": {"what": error.what, "hint": error.hint, "exit_code": error.exit_code, "kind": type(error).__name__}}
    return Response(msgspec.json.encode(document), status_code=code, media_type="application/json")


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


def _read(body: bytes, kind: type[InviteRequest]) -> InviteRequest:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise LocalFault(f"the request can't be read: {error}", "see the reference of the control socket") from error


def _count(request: Request, key: str, default: int) -> int:
    text = request.query_params.get(key, str(default))
    if not text.isdigit():
        raise LocalFault(f"{key} = {text!r} is not a number", "give a whole number")
    return int(text)


def _flag(request: Request, key: str) -> bool:
    return request.query_params.get(key, "") in ("1", "true", "yes")
