"""Asks an agent through its control socket, with the standard library's HTTP alone.

The command line starts this for every command, so it imports no web library, and opens one connection per
question: on a Unix socket that is cheaper than keeping one. Synchronous on purpose: who watches two
things at once uses two threads.

What goes wrong comes out in three forms: ``NotRunning`` where nobody answers or the agent went away in
the middle, ``Refused`` where this user may not ask, and the agent's own faults with the words, hint and
exit code that it gave them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from meshpeer.core.errors import (
    EnvironmentFault,
    LocalFault,
    MeshpeerError,
    NotRunning,
    PeerFault,
    Refused,
    StoreFailed,
)
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.control import (
    CallResult,
    Charter,
    CharterChange,
    DashboardLink,
    InviteMade,
    InviteRequest,
    IssuerInfo,
    IssuerKey,
    Job,
    KeyRotation,
    LogPiece,
    OutputFile,
    OutputState,
    Peer,
    PingAnswer,
    Plan,
    Renamed,
    Retirement,
    RevocationInfo,
    RevocationMade,
    RevocationRequest,
    Roots,
    Said,
    Signed,
    SignedAdded,
    Status,
    Submission,
    Task,
    Why,
)
from meshpeer.runtime.doctor import AgentFindings
from meshpeer.runtime.job_docs import Drain, JobGraph, JobList, JobWhy

ANSWER_S = 30.0
"""How long an agent may think about a plain question."""
SUBMIT_S = 120.0
"""How long it may take to get a job, or one of its files, to disk."""
PING_PACKET_S = 2.0
LINE_BYTES_MAX = 4 * 1024 * 1024
"""One document of a stream."""
PIECE_BYTES = 256 * 1024
SOCKET_PATH_BYTES_MAX = 107
"""sun_path of unix(7), without its end."""

Answer = TypeVar("Answer")
_KINDS: dict[str, type[MeshpeerError]] = {
    kind.__name__: kind
    for kind in (LocalFault, Refused, NotRunning, PeerFault, EnvironmentFault, StoreFailed)
}


class ControlClient:
    """Speaks to the agent behind one socket; the methods mirror ``runtime.control.ControlApi``."""

    def __init__(self, path: Path, *, absent_hint: str = "start it with `meshpeer up`") -> None:
        self.path = path
        self._absent_hint = absent_hint

    # --- the mesh ------------------------------------------------------------

    def status(self) -> Status:
        return self._get("/v1/status", Status)

    def peers(self) -> list[Peer]:
        return self._get("/v1/peers", list[Peer])

    def plan(self) -> Plan:
        return self._get("/v1/plan", Plan)

    def why(self, source: str, target: str) -> Why:
        return self._get(f"/v1/why?{urlencode({'from': source, 'to': target})}", Why)

    def doctor(self) -> AgentFindings:
        return self._get("/v1/doctor", AgentFindings)

    def dashboard(self) -> DashboardLink:
        return self._get("/v1/dashboard", DashboardLink)

    def export_wg_quick(self) -> str:
        with self._ask("GET", "/v1/export/wg-quick") as response:
            return self._all(response).decode("utf-8")

    def invite(self, request: InviteRequest) -> InviteMade:
        return self._post("/v1/invites", InviteMade, msgspec.json.encode(request))

    def charter(self) -> Charter:
        return self._get("/v1/charter", Charter)

    def change_charter(self, change: CharterChange) -> Charter:
        return self._post("/v1/charter", Charter, msgspec.json.encode(change))

    def revocations(self) -> list[RevocationInfo]:
        return self._get("/v1/revocations", list[RevocationInfo])

    def revoke(self, request: RevocationRequest) -> RevocationMade:
        return self._post("/v1/revocations", RevocationMade, msgspec.json.encode(request))

    def rotation(self) -> KeyRotation:
        return self._get("/v1/rotation", KeyRotation)

    def rotate_key(self) -> KeyRotation:
        return self._post("/v1/rotation", KeyRotation)

    def rename(self, name: str) -> Renamed:
        return self._post(f"/v1/name?{urlencode({'name': name})}", Renamed)

    def issuers(self) -> list[IssuerInfo]:
        return self._get("/v1/issuers", list[IssuerInfo])

    def issuer_key(self, name: str) -> IssuerKey:
        """Waits for the member to show its key."""
        return self._post(f"/v1/issuers/key?{urlencode({'node': name})}", IssuerKey)

    def roots(self) -> Roots:
        return self._get("/v1/roots", Roots)

    def retirement(self, root: str, key: bytes) -> Retirement:
        return self._get(f"/v1/roots/retirement?{urlencode({'root': root, 'key': key.hex()})}", Retirement)

    def add_signed(
        self, certificates: tuple[bytes, ...] = (), statements: tuple[bytes, ...] = ()
    ) -> SignedAdded:
        body = msgspec.json.encode(Signed(certificates=certificates, statements=statements))
        return self._post("/v1/signed", SignedAdded, body)

    def ping(self, node: str, count: int) -> PingAnswer:
        query = urlencode({"node": node, "count": count})
        return self._post(f"/v1/ping?{query}", PingAnswer, timeout_s=ANSWER_S + PING_PACKET_S * count)

    def stop(self, *, take_down: bool) -> str:
        return self._post(f"/v1/stop?down={int(take_down)}", Said).said

    def leave(self, *, force: bool) -> str:
        return self._post(f"/v1/leave?force={int(force)}", Said).said

    # --- files ------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Tells whether the agent has this content; one that can't say says why when the content comes."""
        with self._ask("HEAD", f"/v1/blobs/{digest}", judge=False) as response:
            return response.status == 200

    def put_blob(self, digest: str, size: int, file: BinaryIO) -> None:
        with self._ask("PUT", f"/v1/blobs/{digest}", body=file, length=size, timeout_s=SUBMIT_S) as response:
            self._all(response)

    def ready_output(self, job: str, task: str, path: str) -> OutputState:
        """Has a file moved to this node; asked again and again until it is ready to be read."""
        query = urlencode({"task": task, "path": path, "ready": 1})
        return self._get(f"/v1/jobs/{_segment(job)}/output?{query}", OutputState, timeout_s=SUBMIT_S)

    def get_output(self, job: str, task: str, path: str, offset: int = 0) -> Iterator[bytes]:
        """Yields the file's bytes from ``offset`` on; raises ``NotRunning`` where the agent goes away before
        the end."""
        query = urlencode({"task": task, "path": path, "offset": offset})
        with self._ask("GET", f"/v1/jobs/{_segment(job)}/output?{query}", timeout_s=SUBMIT_S) as response:
            while piece := self._some(response, PIECE_BYTES):
                yield piece

    # --- jobs ------------------------------------------------------------

    def submit(self, submission: Submission) -> Job:
        """Hands a job over. The id is ours, so a submit whose answer was lost is simply made again, once."""
        from meshpeer.core.wire import cbor

        body = cbor.encode(submission)
        try:
            return self._post("/v1/jobs", Job, body, timeout_s=SUBMIT_S)
        except NotRunning as error:
            if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
                raise
            return self._post("/v1/jobs", Job, body, timeout_s=SUBMIT_S)

    def jobs(self) -> list[Job]:
        return self._get("/v1/jobs", list[Job])

    def job(self, job: str) -> Job:
        return self._get(f"/v1/jobs/{_segment(job)}", Job)

    def tasks(self, job: str) -> list[Task]:
        return self._get(f"/v1/jobs/{_segment(job)}/tasks", list[Task])

    def outputs(self, job: str, task: str) -> list[OutputFile]:
        return self._get(
            f"/v1/jobs/{_segment(job)}/outputs?{urlencode({'task': task})}",
            list[OutputFile],
            timeout_s=SUBMIT_S,
        )

    def log(
        self, job: str, task: str, stream: str, offset: int, *, wait: bool = False, attempt: int = 0
    ) -> LogPiece:
        """Reads a piece of a task's output; with ``wait`` the agent answers when there is more, or after
        a while all the same.
        """
        query = urlencode(
            {"task": task, "stream": stream, "offset": offset, "wait": int(wait), "attempt": attempt}
        )
        return self._get(f"/v1/jobs/{_segment(job)}/log?{query}", LogPiece, timeout_s=SUBMIT_S)

    def watch(self, job: str) -> Iterator[Job]:
        """Yields the job now and at every change until it has ended; waits as long as that takes."""
        with self._ask("GET", f"/v1/jobs/{_segment(job)}/watch", timeout_s=None) as response:
            for line in self._lines(response):
                yield self._decoded(line, Job)

    def results(self, job: str, *, silence_s: float | None = None) -> Iterator[CallResult]:
        """Yields what became of each function of a job, as they end; raises ``EnvironmentFault`` from a
        ``TimeoutError`` after a silence of ``silence_s``."""
        with self._ask("GET", f"/v1/jobs/{_segment(job)}/results", timeout_s=silence_s) as response:
            for line in self._lines(response):
                yield self._decoded(line, CallResult)

    def cancel(self, job: str) -> Job:
        return self._post(f"/v1/jobs/{_segment(job)}/cancel", Job)

    def all_jobs(self) -> JobList:
        """Returns the jobs of all members that can be asked."""
        return self._get("/v1/mesh/jobs", JobList)

    def pause(self, job: str, paused: bool) -> Job:
        return self._post(f"/v1/jobs/{_segment(job)}/{'pause' if paused else 'resume'}", Job)

    def prioritise(self, job: str, priority: int) -> Job:
        return self._post(f"/v1/jobs/{_segment(job)}/priority?{urlencode({'value': priority})}", Job)

    def retry(self, job: str, tasks: Sequence[str] = ()) -> Job:
        query = urlencode([("task", one) for one in tasks])
        return self._post(f"/v1/jobs/{_segment(job)}/retry?{query}", Job)

    def adopt(self, job: str, force: bool) -> Job:
        return self._post(f"/v1/jobs/{_segment(job)}/adopt?{urlencode({'force': int(force)})}", Job)

    def why_task(self, job: str, task: str = "") -> JobWhy:
        return self._get(f"/v1/jobs/{_segment(job)}/why?{urlencode({'task': task})}", JobWhy)

    def graph(self, job: str) -> JobGraph:
        return self._get(f"/v1/jobs/{_segment(job)}/graph", JobGraph)

    def drain_of(self, node: str = "") -> Drain:
        return self._get(f"/v1/drain?{urlencode({'node': node})}", Drain)

    def drain(self, node: str, drained: bool) -> Drain:
        return self._post(f"/v1/drain?{urlencode({'node': node, 'drained': int(drained)})}", Drain)

    # --- HTTP ------------------------------------------------------------

    def _get(self, target: str, kind: type[Answer], *, timeout_s: float = ANSWER_S) -> Answer:
        with self._ask("GET", target, timeout_s=timeout_s) as response:
            return self._decoded(self._all(response), kind)

    def _post(
        self, target: str, kind: type[Answer], body: bytes = b"", *, timeout_s: float = ANSWER_S
    ) -> Answer:
        with self._ask("POST", target, body=body, length=len(body), timeout_s=timeout_s) as response:
            return self._decoded(self._all(response), kind)

    @contextlib.contextmanager
    def _ask(
        self,
        method: str,
        target: str,
        *,
        body: bytes | BinaryIO | None = None,
        length: int = 0,
        timeout_s: float | None = ANSWER_S,
        judge: bool = True,
    ) -> Iterator[http.client.HTTPResponse]:
        """Opens one exchange; raises the agent's fault where the answer is one (and is to be judged)."""
        connection = _UnixConnection(self.path, timeout_s)
        try:
            with self._translated():
                connection.connect()
                headers = {"Content-Length": str(length)} if body is not None else {}
                # An agent that refuses an upload answers before it has read all of it: its answer says why.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body=body, headers=headers)
                response = connection.getresponse()
            if judge and response.status >= 300:
                raise self._fault(response)
            yield response
        finally:
            connection.close()

    def _all(self, response: http.client.HTTPResponse) -> bytes:
        with self._translated():
            return response.read()

    def _some(self, response: http.client.HTTPResponse, count: int) -> bytes:
        with self._translated():
            piece = response.read1(count)
            if not piece and response.length:
                raise http.client.IncompleteRead(piece)
            return piece

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yields whole lines.

        ``readline`` of the response would take a stream that was cut off for one that ended.
        """
        rest = b""
        while piece := self._some(response, PIECE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) > LINE_BYTES_MAX:
                raise EnvironmentFault("the agent's answer is too long", "is it an agent of this version?")

    def _fault(self, response: http.client.HTTPResponse) -> MeshpeerError:
        body = self._all(response)
        try:
            error = msgspec.json.decode(body, type=_Failure).error
        except UNREADABLE:
            hint = "is this command of another version than the agent? compare `meshpeer version` on both"
            return EnvironmentFault(f"the agent answered {response.status} {response.reason}", hint)
        fault = _KINDS.get(error.kind, MeshpeerError)(error.what, error.hint)
        fault.exit_code = error.exit_code
        return fault

    def _decoded(self, body: bytes, kind: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE as error:
            hint = "the agent may be of another version: restart it with `meshpeer stop` and `meshpeer up`"
            raise EnvironmentFault(f"the agent's answer can't be read: {error}", hint) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(
                f"no agent is running here (nobody answers on {self.path})", self._absent_hint
            ) from error
        except PermissionError as error:
            hint = "run with sudo, or name a group of yours as socket_group under [control] in meshpeer.toml"
            raise Refused(
                f"you may not ask this machine's agent ({self.path} is closed to you)", hint
            ) from error
        except TimeoutError as error:
            raise EnvironmentFault(
                "the agent does not answer", "look at its log, and start it anew if it hangs: `meshpeer up`"
            ) from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise NotRunning(
                "the agent went away before its answer was complete",
                "see its log; `meshpeer up` starts it again",
            ) from error
        except OSError as error:
            raise EnvironmentFault(
                f"{self.path} can't be used: {error.strerror or error}", "name another folder with --run-dir"
            ) from error


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    hint: str = ""
    exit_code: int = 1
    kind: str = ""


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    error: _Problem


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; the host's name is only there because HTTP/1.1 wants one."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("meshpeer", timeout=timeout_s)
        self._path = os.fspath(path)

    def connect(self) -> None:
        if len(os.fsencode(self._path)) > SOCKET_PATH_BYTES_MAX:
            raise LocalFault(
                f"the socket's path has more than {SOCKET_PATH_BYTES_MAX} bytes: {self._path}",
                "name a shorter folder with --run-dir",
            )
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _segment(text: str) -> str:
    """Returns the text as one segment of a path; raises ``LocalFault`` for what can't be a job."""
    if not text or "/" in text:
        raise LocalFault(f"there is no job {text!r}", "see `meshpeer jobs list`")
    return quote(text, safe="")
