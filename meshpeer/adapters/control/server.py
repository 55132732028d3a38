"""Serves the control API with Starlette and Hypercorn on trio. Every route is listed in ``_routes``;
handlers only translate.

Who may ask is who may open the socket: it is made 0600, and is at no moment more open than that. A fault
of ours or the caller's is answered as ``{"error": {what, hint, exit_code, kind}}``; a bug is answered as
one, too, and logged with its traceback.
"""

from __future__ import annotations

import contextlib
import grp
import os
import re
import socket
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import hypercorn.config
import hypercorn.trio
import msgspec
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from trio import TaskStatus

from meshpeer.adapters.control.client import SOCKET_PATH_BYTES_MAX
from meshpeer.core.errors import (
    EnvironmentFault,
    LocalFault,
    MeshpeerError,
    NotRunning,
    PeerFault,
    Refused,
    StoreFailed,
)
from meshpeer.core.jobs.rules import size_text
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.control import (
    CharterChange,
    ControlApi,
    InviteRequest,
    RevocationRequest,
    Said,
    Signed,
    Submission,
)

SUBMISSION_BYTES_MAX = 64 * 1024 * 1024
SIGNED_BYTES_MAX = 4 * 1024 * 1024
"""As many revocations as one author may have, signed anew."""
REQUEST_BYTES_MAX = 64 * 1024
"""Any other body."""
_KINDS: tuple[tuple[type[MeshpeerError], int], ...] = (
    (StoreFailed, 507),
    (EnvironmentFault, 500),
    (NotRunning, 503),
    (Refused, 403),
    (PeerFault, 400),
    (LocalFault, 400),
    (MeshpeerError, 500),
)
"""The kinds of fault that a client knows, the special ones first, and how HTTP puts them."""
_NUMBER = re.compile(r"[0-9]{1,18}")
"""A number in a request; ``str.isdigit`` takes digits of other scripts, too, and any number of them."""
Handler = Callable[[Request], Awaitable[Response]]
Shape = TypeVar("Shape")


async def serve_control(
    api: ControlApi, path: Path, *, group: str = "", task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until cancelled; raises ``EnvironmentFault`` where the socket can't be made, or another
    agent answers there.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise LocalFault(
            f"the socket's path has more than {SOCKET_PATH_BYTES_MAX} bytes: {path}",
            "name a shorter folder with --run-dir",
        )
    config = hypercorn.config.Config()
    config.bind = [f"unix:{path}"]
    config.umask = 0o177
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 1
    config.h11_max_incomplete_size = REQUEST_BYTES_MAX
    try:
        _make_room(path)
    except OSError as error:
        raise _not_made(path, error) from error
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, application(api), config)
            if group:
                _hand_to_group(path, group)
            task_status.started()
    except BaseExceptionGroup as errors:
        only = _only(errors)
        if isinstance(only, OSError):
            raise _not_made(path, only) from only
        if isinstance(only, MeshpeerError):
            raise only from None
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


async def _serve(
    application: Starlette, config: hypercorn.config.Config, *, task_status: TaskStatus[list[str]]
) -> None:
    await hypercorn.trio.serve(application, config, task_status=task_status)  # type: ignore[arg-type]


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Returns the one error of nested groups, or None where there are several."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        error = error.exceptions[0]
    return error


def _not_made(path: Path, error: OSError) -> EnvironmentFault:
    what = f"the control socket {path} can't be made: {error.strerror}"
    return EnvironmentFault(what, "name another folder with --run-dir")


def _make_room(path: Path) -> None:
    """Makes the socket's folder and removes a socket that nobody answers; refuses one that somebody does."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise EnvironmentFault(
        f"another agent answers on {path}", "see `meshpeer status`, or name another folder with --run-dir"
    )


def _hand_to_group(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(path, 0o660)
    except (KeyError, OSError) as error:
        raise EnvironmentFault(
            f"the control socket can't be given to the group {group}: {error}",
            "check socket_group under [control]",
        ) from error


def application(api: ControlApi) -> Starlette:
    """Returns the API as an ASGI application, wherever it is served."""
    handlers: dict[object, Callable[[Request, Exception], Awaitable[Response]]] = {
        MeshpeerError: _on_fault,
        HTTPException: _on_no_route,
        Exception: _on_bug,
    }
    application = Starlette(routes=_routes(api), exception_handlers=handlers)
    # A path is right or it is not; the way to the right one breaks on a query that is no UTF-8.
    application.router.redirect_slashes = False
    return application


def _routes(api: ControlApi) -> list[Route]:
    async def status(_: Request) -> Response:
        return _json(await api.status())

    async def peers(_: Request) -> Response:
        return _json(await api.peers())

    async def plan(_: Request) -> Response:
        return _json(await api.plan())

    async def why(request: Request) -> Response:
        query = request.query_params
        return _json(await api.why(query.get("from", ""), query.get("to", "")))

    async def doctor(_: Request) -> Response:
        return _json(await api.doctor())

    async def dashboard(_: Request) -> Response:
        return _json(await api.dashboard())

    async def export_wg_quick(_: Request) -> Response:
        return PlainTextResponse(await api.export_wg_quick())

    async def invite(request: Request) -> Response:
        return _json(await api.invite(_read(await _body(request, REQUEST_BYTES_MAX), InviteRequest)))

    async def charter(request: Request) -> Response:
        if request.method == "GET":
            return _json(await api.charter())
        change = _read(await _body(request, REQUEST_BYTES_MAX), CharterChange)
        return _json(await api.change_charter(change))

    async def revocations(request: Request) -> Response:
        if request.method == "GET":
            return _json(await api.revocations())
        return _json(await api.revoke(_read(await _body(request, REQUEST_BYTES_MAX), RevocationRequest)))

    async def rotation(request: Request) -> Response:
        return _json(await (api.rotation() if request.method == "GET" else api.rotate_key()))

    async def rename(request: Request) -> Response:
        return _json(await api.rename(request.query_params.get("name", "")))

    async def issuers(_: Request) -> Response:
        return _json(await api.issuers())

    async def issuer_key(request: Request) -> Response:
        return _json(await api.issuer_key(request.query_params.get("node", "")))

    async def roots(_: Request) -> Response:
        return _json(await api.roots())

    async def retirement(request: Request) -> Response:
        query = request.query_params
        try:
            key = bytes.fromhex(query.get("key", ""))
        except ValueError as error:
            raise LocalFault("the key of the root is no hexadecimal number", "give its public key") from error
        return _json(await api.retirement(query.get("root", ""), key))

    async def signed(request: Request) -> Response:
        made = _read(await _body(request, SIGNED_BYTES_MAX), Signed)
        return _json(await api.add_signed(made.certificates, made.statements))

    async def ping(request: Request) -> Response:
        return _json(await api.ping(request.query_params.get("node", ""), _count(request, "count", 3)))

    async def stop(request: Request) -> Response:
        return _json(Said(said=await api.stop(take_down=_flag(request, "down"))))

    async def leave(request: Request) -> Response:
        return _json(Said(said=await api.leave(force=_flag(request, "force"))))

    async def blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        if request.method == "HEAD":
            return Response(status_code=200 if await api.has_blob(digest) else 404)
        length = _length(request, BLOB_BYTES_MAX)
        async with contextlib.aclosing(request.stream()) as pieces:
            await api.put_blob(digest, length, pieces)
        return _json({"stored": digest})

    async def jobs(request: Request) -> Response:
        if request.method == "POST":
            body = await _body(request, SUBMISSION_BYTES_MAX)
            return _json(await api.submit(cbor.decode(body, Submission, bytes_max=SUBMISSION_BYTES_MAX)))
        return _json(await api.jobs())

    async def job(request: Request) -> Response:
        return _json(await api.job(request.path_params["job"]))

    async def tasks(request: Request) -> Response:
        return _json(await api.tasks(request.path_params["job"]))

    async def outputs(request: Request) -> Response:
        return _json(await api.outputs(request.path_params["job"], request.query_params.get("task", "")))

    async def output(request: Request) -> Response:
        query, job = request.query_params, request.path_params["job"]
        task, path = query.get("task", ""), query.get("path", "")
        if _flag(request, "ready"):
            return _json(await api.ready_output(job, task, path))
        pieces = api.get_output(job, task, path, _count(request, "offset", 0))
        return await _stream(pieces, "application/octet-stream")

    async def log(request: Request) -> Response:
        query = request.query_params
        piece = await api.log(
            request.path_params["job"],
            query.get("task", ""),
            query.get("stream", "stdout"),
            _count(request, "offset", 0),
            _flag(request, "wait"),
            _count(request, "attempt", 0),
        )
        return _json(piece)

    async def watch(request: Request) -> Response:
        async def lines() -> AsyncGenerator[bytes, None]:
            updates = api.watch(request.path_params["job"])
            try:
                async for one in updates:
                    yield msgspec.json.encode(one) + b"\n"
            finally:
                await _close(updates)

        return await _stream(lines(), "application/x-ndjson")

    async def results(request: Request) -> Response:
        async def lines() -> AsyncGenerator[bytes, None]:
            found = api.results(request.path_params["job"])
            try:
                async for one in found:
                    yield msgspec.json.encode(one) + b"\n"
            finally:
                await _close(found)

        return await _stream(lines(), "application/x-ndjson")

    async def cancel(request: Request) -> Response:
        return _json(await api.cancel(request.path_params["job"]))

    async def mesh_jobs(_: Request) -> Response:
        return _json(await api.all_jobs())

    async def pause(request: Request) -> Response:
        return _json(await api.pause(request.path_params["job"], True))

    async def resume(request: Request) -> Response:
        return _json(await api.pause(request.path_params["job"], False))

    async def priority(request: Request) -> Response:
        value = _whole(request, "value")
        return _json(await api.prioritise(request.path_params["job"], value))

    async def retry(request: Request) -> Response:
        tasks = tuple(request.query_params.getlist("task"))
        return _json(await api.retry(request.path_params["job"], tasks))

    async def adopt(request: Request) -> Response:
        force = request.query_params.get("force") == "1"
        return _json(await api.adopt(request.path_params["job"], force))

    async def why_task(request: Request) -> Response:
        return _json(await api.why_task(request.path_params["job"], request.query_params.get("task", "")))

    async def graph(request: Request) -> Response:
        return _json(await api.graph(request.path_params["job"]))

    async def drain(request: Request) -> Response:
        node = request.query_params.get("node", "")
        if request.method == "GET":
            return _json(await api.drain_of(node))
        return _json(await api.drain(node, _flag(request, "drained")))

    table: list[tuple[str, str, Handler]] = [
        ("GET", "/v1/status", status),
        ("GET", "/v1/peers", peers),
        ("GET", "/v1/plan", plan),
        ("GET", "/v1/why", why),
        ("GET", "/v1/doctor", doctor),
        ("GET", "/v1/dashboard", dashboard),
        ("GET", "/v1/export/wg-quick", export_wg_quick),
        ("POST", "/v1/invites", invite),
        ("GET POST", "/v1/charter", charter),
        ("GET POST", "/v1/revocations", revocations),
        ("GET POST", "/v1/rotation", rotation),
        ("POST", "/v1/name", rename),
        ("GET", "/v1/issuers", issuers),
        ("POST", "/v1/issuers/key", issuer_key),
        ("GET", "/v1/roots", roots),
        ("GET", "/v1/roots/retirement", retirement),
        ("POST", "/v1/signed", signed),
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
        ("GET", "/v1/jobs/{job}/results", results),
        ("POST", "/v1/jobs/{job}/cancel", cancel),
        ("POST", "/v1/jobs/{job}/pause", pause),
        ("POST", "/v1/jobs/{job}/resume", resume),
        ("POST", "/v1/jobs/{job}/priority", priority),
        ("POST", "/v1/jobs/{job}/retry", retry),
        ("POST", "/v1/jobs/{job}/adopt", adopt),
        ("GET", "/v1/jobs/{job}/why", why_task),
        ("GET", "/v1/jobs/{job}/graph", graph),
        ("GET", "/v1/mesh/jobs", mesh_jobs),
        ("GET POST", "/v1/drain", drain),
    ]
    return [Route(path, handler, methods=methods.split()) for methods, path, handler in table]


class _Stream(StreamingResponse):
    """A streamed answer that closes its source where the client has gone, in this task, and not at the
    whim of the collector.
    """

    def __init__(self, first: bytes, pieces: AsyncIterator[bytes], kind: str) -> None:
        self._first = first
        self._pieces = pieces
        super().__init__(self._all(), media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self.body_iterator)
            await _close(self._pieces)

    async def _all(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for piece in self._pieces:
            yield piece


async def _stream(pieces: AsyncIterator[bytes], kind: str) -> Response:
    """Answers with a stream whose first piece is awaited here, so that a fault still becomes a proper
    answer.
    """
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        return Response(b"", media_type=kind)
    return _Stream(first, pieces, kind)


async def _close(source: object) -> None:
    """Closes an asynchronous generator; other sources have nothing to close."""
    if isinstance(source, AsyncGenerator):
        with trio.CancelScope(shield=True):
            await source.aclose()


async def _on_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, MeshpeerError)
    kind, status = next((kind, status) for kind, status in _KINDS if isinstance(error, kind))
    return _fault_document(error, kind, status)


async def _on_no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"the agent has no route {request.method} {request.scope['path']}"
    return _fault_document(
        LocalFault(what, "is it of this command's version?"), LocalFault, error.status_code
    )


async def _on_bug(_: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    what = f"a bug in the agent: {type(error).__name__}: {error}"
    fault = MeshpeerError(what, "its log has the traceback; please report it")
    return _fault_document(fault, MeshpeerError, 500)


def _fault_document(fault: MeshpeerError, kind: type[MeshpeerError], status: int) -> Response:
    error = {"what": fault.what, "hint": fault.hint, "exit_code": fault.exit_code, "kind": kind.__name__}
    document = msgspec.json.encode({"error": error})
    return Response(document, status_code=status, media_type="application/json")


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


async def _body(request: Request, bytes_max: int) -> bytes:
    """Reads a request's body; raises ``LocalFault`` once it is longer than that."""
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > bytes_max:
                hint = "see the reference of the control socket"
                raise LocalFault(f"the request is longer than {bytes_max} bytes", hint)
    return bytes(body)


def _length(request: Request, bytes_max: int) -> int:
    """Returns the announced length of a body; raises ``LocalFault`` where there is none, or it is too
    long.
    """
    text = request.headers.get("content-length", "")
    if not _NUMBER.fullmatch(text):
        raise LocalFault("an upload needs a Content-Length", "curl sends one with --upload-file")
    if int(text) > bytes_max:
        raise LocalFault(
            f"a file of {text} bytes exceeds {size_text(bytes_max, ' ')}",
            "split it, or leave it on shared storage",
        )
    return int(text)


def _read(body: bytes, kind: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except UNREADABLE as error:
        raise LocalFault(
            f"the request can't be read: {error}", "see the reference of the control socket"
        ) from error


def _count(request: Request, key: str, default: int) -> int:
    text = request.query_params.get(key, str(default))
    if not _NUMBER.fullmatch(text):
        raise LocalFault(f"{key} = {text[:40]!r} is not a number", "give a whole number")
    return int(text)


def _whole(request: Request, key: str) -> int:
    """Reads a number that may be below 0."""
    text = request.query_params.get(key, "")
    if not _NUMBER.fullmatch(text.removeprefix("-")):
        raise LocalFault(f"{key} = {text[:40]!r} is not a number", "give a whole number")
    return int(text)


def _flag(request: Request, key: str) -> bool:
    return request.query_params.get(key, "") in ("1", "true", "yes")
