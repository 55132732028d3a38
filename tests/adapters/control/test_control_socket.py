"""The control socket: its modes, its faults, its streams, as a client and as curl would meet them."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fake_control_api import FakeApi, make_findings, make_peer, make_status, make_why, serving

from meshpeer.adapters.control.client import ControlClient
from meshpeer.core.errors import (
    EnvironmentFault,
    LocalFault,
    MeshpeerError,
    NotRunning,
    PeerFault,
    Refused,
    StoreFailed,
)
from meshpeer.core.jobs.model import JobSpec, TaskSpec
from meshpeer.core.wire import cbor
from meshpeer.core.wire.limits import BLOB_BYTES_MAX
from meshpeer.runtime.control import CallResult, InviteRequest, Submission

JOB = "jaaaaaaaaaaaaaaaaaaa"


def test_documents_arrive_as_they_were_given(api: FakeApi, client: ControlClient) -> None:
    api.members = [make_peer(name="beta"), make_peer(name="名前", rtt_ms=None)]
    assert client.status() == make_status()
    assert client.peers() == api.members
    assert client.plan().peers[0].name == "beta"
    assert client.why("alpha", "名前") == make_why()
    assert api.asked[-1] == ("why", "alpha", "名前")
    assert client.doctor() == make_findings()
    assert client.export_wg_quick().startswith("[Interface]")
    assert client.ping("beta", 3).rtt_ms == (0.5, None, 1.5)


def test_requests_arrive_as_they_were_made(api: FakeApi, client: ControlClient) -> None:
    request = InviteRequest(
        expires_s=60, uses=3, roles=("a", "b"), region="eu", allow=("x",), deny=("submit",)
    )
    client.invite(request)
    client.stop(take_down=True)
    client.stop(take_down=False)
    client.leave(force=True)
    assert api.asked == [("invite", request), ("stop", True), ("stop", False), ("leave", True)]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (LocalFault("wrong", "mend it"), LocalFault),
        (Refused("no", "ask"), Refused),
        (PeerFault("rubbish", "-"), PeerFault),
        (EnvironmentFault("lacks", "install"), EnvironmentFault),
        (StoreFailed("full", "df"), StoreFailed),
        (MeshpeerError("plain", "-"), MeshpeerError),
    ],
)
def test_a_fault_keeps_its_kind_words_and_exit_code(
    api: FakeApi, client: ControlClient, fault: MeshpeerError, kind: type[MeshpeerError]
) -> None:
    api.fault = fault
    with pytest.raises(MeshpeerError) as caught:
        client.status()
    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.hint, caught.value.exit_code) == (
        fault.what,
        fault.hint,
        fault.exit_code,
    )


def test_a_fault_of_a_kind_that_no_client_knows_comes_as_its_nearest(
    api: FakeApi, client: ControlClient
) -> None:
    class Special(Refused):
        exit_code = 4

    api.fault = Special("no", "ask")
    with pytest.raises(Refused, match="no"):
        client.peers()


def test_a_bug_is_answered_and_the_agent_goes_on(api: FakeApi, client: ControlClient) -> None:
    api.fault = ZeroDivisionError("oops")
    with pytest.raises(MeshpeerError, match="a bug in the agent: ZeroDivisionError: oops"):
        client.status()
    api.fault = None
    assert client.status().node.name == "alpha"


def test_the_socket_is_closed_to_others(api: FakeApi, socket_path: Path, client: ControlClient) -> None:
    mode = socket_path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_the_socket_is_never_more_open_than_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real_bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            real_bind(self, address)  # type: ignore[arg-type]
            modes.append(stat.S_IMODE(os.stat(str(address)).st_mode))

    monkeypatch.setattr("hypercorn.config.socket.socket", Watched)
    with serving(FakeApi(), tmp_path / "agent.sock"):
        assert modes == [0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_a_named_group_may_use_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with serving(FakeApi(), path, group="daemon"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid != 0


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(BaseExceptionGroup) as caught, serving(FakeApi(), path, group="no-such-group"):
        pass
    assert "no-such-group" in str(_leaf(caught.value))
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(FakeApi(), path):
        assert ControlClient(path).status().node.name == "alpha"


def test_a_second_agent_does_not_take_the_socket_of_the_first(
    api: FakeApi, socket_path: Path, client: ControlClient
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught, serving(FakeApi(), socket_path):
        pass
    fault = _leaf(caught.value)
    assert isinstance(fault, EnvironmentFault)
    assert "another agent answers" in fault.what
    assert client.status().node.name == "alpha"


def test_the_socket_goes_with_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    with serving(FakeApi(), path):
        assert path.exists()
    assert not path.exists()
    with pytest.raises(NotRunning, match="no agent is running here"):
        ControlClient(path).status()


def test_a_folder_that_can_not_be_made_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BaseExceptionGroup) as caught, serving(FakeApi(), tmp_path / "file" / "agent.sock"):
        pass
    assert isinstance(_leaf(caught.value), EnvironmentFault)


def test_a_path_too_long_for_a_socket_is_said_on_both_sides(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100) / "agent.sock"
    with pytest.raises(BaseExceptionGroup) as caught, serving(FakeApi(), path):
        pass
    assert "107 bytes" in str(_leaf(caught.value))
    with pytest.raises(LocalFault, match="107 bytes"):
        ControlClient(path).status()


def test_blobs_go_up_once_and_whole(api: FakeApi, client: ControlClient) -> None:
    data = bytes(range(256)) * 4_096
    digest = hashlib.sha256(data).hexdigest()
    assert not client.has_blob(digest)
    client.put_blob(digest, len(data), io.BytesIO(data))
    assert client.has_blob(digest)
    assert api.stored == {digest: data}


def test_a_refused_upload_says_why_although_it_was_not_read(api: FakeApi, client: ControlClient) -> None:
    api.fault = StoreFailed("the disk is full", "free some space")
    data = b"x" * 20_000_000
    with pytest.raises(StoreFailed, match="the disk is full"):
        client.put_blob("00" * 32, len(data), io.BytesIO(data))


def test_an_upload_beyond_the_limit_is_refused_before_it_is_read(api: FakeApi, client: ControlClient) -> None:
    with pytest.raises(LocalFault, match="exceeds 1 TiB"):
        client.put_blob("00" * 32, BLOB_BYTES_MAX + 1, io.BytesIO(b"x"))
    assert api.asked == []


def test_an_upload_without_a_length_is_refused(socket_path: Path, client: ControlClient) -> None:
    answer = _raw(
        socket_path, b"PUT /v1/blobs/00 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Content-Length" in answer


@pytest.mark.parametrize("body", [b"{", b'{"uses": "many"}', b"\xff"])
def test_a_malformed_request_is_the_callers_fault(
    socket_path: Path, client: ControlClient, body: bytes
) -> None:
    head = f"POST /v1/invites HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = _raw(socket_path, head + body)
    assert answer.startswith(b"HTTP/1.1 400")
    assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]["exit_code"] == 2


def test_a_request_beyond_the_limit_is_refused(socket_path: Path, client: ControlClient) -> None:
    head = b"POST /v1/invites HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"
    assert _raw(socket_path, head + b" " * 70_000).startswith(b"HTTP/1.1 400")


def test_a_number_that_is_none_is_refused(socket_path: Path, client: ControlClient) -> None:
    answer = _raw(
        socket_path, b"POST /v1/ping?node=b&count=-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_job_is_submitted_as_it_is(api: FakeApi, client: ControlClient) -> None:
    spec = JobSpec(name="film", tasks=(TaskSpec(name="split", argv=("true",)),))
    assert client.submit(Submission(job=JOB, spec=cbor.encode(spec))).id == JOB
    assert api.specs == {JOB: spec}


def test_a_job_may_be_asked_for_by_a_name_with_strange_letters(api: FakeApi, client: ControlClient) -> None:
    for name in ("ä b", "100%", "?x=1", "..", "名前", "a#b", "a\nb"):
        with pytest.raises(LocalFault):
            client.job(name)
        assert api.asked[-1] == ("job", name)


@pytest.mark.parametrize("name", ["", "a/b", "../status"])
def test_what_can_not_be_a_job_is_never_asked_for(api: FakeApi, client: ControlClient, name: str) -> None:
    with pytest.raises(LocalFault, match="there is no job"):
        client.job(name)
    assert api.asked == []


@pytest.mark.parametrize("path", [b"/v2/status", b"/v1/status/"])
def test_a_route_that_does_not_exist_is_answered_in_the_same_form(
    socket_path: Path, client: ControlClient, path: bytes
) -> None:
    answer = _raw(socket_path, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")
    assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]["kind"] == "LocalFault"


def test_an_output_arrives_whole(api: FakeApi, client: ControlClient) -> None:
    api.made = {"split[3]": {"out/ä b.bin": bytes(10_000), "empty": b""}}
    assert b"".join(client.get_output(JOB, "split[3]", "out/ä b.bin")) == bytes(10_000)
    assert b"".join(client.get_output(JOB, "split[3]", "empty")) == b""


def test_a_log_comes_piece_by_piece(api: FakeApi, client: ControlClient) -> None:
    api.printed = {("split", "stdout"): b"0123456789abc\xff"}
    first = client.log(JOB, "split", "stdout", 0)
    rest = client.log(JOB, "split", "stdout", first.offset, wait=True)
    assert (first.data, first.finished, rest.data, rest.finished) == (b"0123456789", False, b"abc\xff", True)


def test_a_watch_yields_until_the_job_has_ended(api: FakeApi, client: ControlClient) -> None:
    assert [one.state for one in client.watch(JOB)] == ["running", "succeeded"]


def test_results_come_as_they_are_and_a_silence_can_be_bounded(api: FakeApi, client: ControlClient) -> None:
    one = CallResult(
        task="call[0]",
        index=0,
        state="succeeded",
        node="alpha",
        error="",
        path="results/call.0.pickle",
        size=3,
        data=b"\x80\x05\xff",
    )
    api.returned = (one, msgspec.structs.replace(one, task="call[1]", index=1, data=None))
    assert tuple(client.results(JOB)) == api.returned
    api.silent = True
    results = client.results(JOB, silence_s=0.2)
    assert (next(results), next(results)) == api.returned
    with pytest.raises(EnvironmentFault, match="does not answer") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_fault_before_the_first_piece_of_a_stream_is_a_fault(api: FakeApi, client: ControlClient) -> None:
    api.fault = LocalFault("no such job", "see the list")
    with pytest.raises(LocalFault, match="no such job"):
        list(client.watch(JOB))


def test_an_agent_that_dies_in_a_stream_is_no_end_of_it(api: FakeApi, client: ControlClient) -> None:
    api.die_in_watch = True
    updates = client.watch(JOB)
    assert next(updates).state == "running"
    with pytest.raises(NotRunning, match="went away"):
        next(updates)


def test_a_watcher_that_goes_away_leaves_nothing_behind(api: FakeApi, socket_path: Path) -> None:
    api.ends = False
    with serving(api, socket_path):  # the fixture's is not used: this one must also stop in time
        updates = ControlClient(socket_path).watch(JOB)
        next(updates)
        updates.close()
        assert ControlClient(socket_path).status().node.name == "alpha"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_something_else_on_the_socket_is_no_agent(tmp_path: Path, answer: bytes) -> None:
    with _speaking(tmp_path / "agent.sock", answer) as path, pytest.raises(NotRunning, match="went away"):
        ControlClient(path).status()


def test_an_answer_of_another_version_is_said(tmp_path: Path) -> None:
    body = b'{"something": "else"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        _speaking(tmp_path / "agent.sock", head + body) as path,
        pytest.raises(EnvironmentFault, match="can't be read"),
    ):
        ControlClient(path).status()


def test_a_submit_whose_answer_was_lost_is_made_again_under_the_same_id(tmp_path: Path) -> None:
    job = FakeApi()._job(JOB, "running")
    body = msgspec.json.encode(job)
    good = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    spec = JobSpec(name="film", tasks=(TaskSpec(name="split", argv=("true",)),))
    with _Speaker(tmp_path / "agent.sock", [b"", good]) as speaker:
        submission = Submission(job=JOB, spec=cbor.encode(spec))
        assert ControlClient(speaker.path).submit(submission) == job
    assert len(speaker.heard) == 2
    assert all(cbor.encode(submission) in one for one in speaker.heard)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_open_the_socket_is_told_so(
    api: FakeApi, socket_path: Path, client: ControlClient
) -> None:
    socket_path.parent.chmod(0o711)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(65534)
            ControlClient(socket_path).status()
        except Refused as refused:
            os.write(writing, refused.hint.encode())
        except NotRunning:
            os.write(writing, b"not reachable: sudo")  # a parent folder is closed already
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert b"sudo" in pipe.read()


# --- helpers -----------------------------------------------------------


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def client(api: FakeApi, socket_path: Path) -> Iterator[ControlClient]:
    with serving(api, socket_path):
        yield ControlClient(socket_path)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _raw(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer


class _Speaker:
    """Answers each connection with the next of some bytes, then closes it."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.path = path
        self.heard: list[bytes] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                self.heard.append(connection.recv(1 << 20))
                if b"Content-Length: " in self.heard[-1] and not self.heard[-1].partition(b"\r\n\r\n")[2]:
                    self.heard[-1] += connection.recv(1 << 20)
                connection.sendall(answer)

    def __enter__(self) -> _Speaker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()


class _speaking(_Speaker):
    def __init__(self, path: Path, answer: bytes) -> None:
        super().__init__(path, [answer])

    def __enter__(self) -> Path:  # type: ignore[override]
        super().__enter__()
        return self.path
