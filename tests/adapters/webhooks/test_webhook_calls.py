"""Calls of services over real HTTP, the file of secrets, and who is believed to call back."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from meshpeer.adapters.webhooks import HttpCaller, read_keys
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.deadline import Instant
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.scheduler.webhook_messages import AnswerCallback, CallbackReceived
from meshpeer.core.wire.webhook_signatures import sign
from meshpeer.runtime.ports import Blobs
from meshpeer.runtime.webhooks import WebhookRules, Webhooks

NOW = Instant(1.0, 1_800_000_000.0)
KEY, OLD = b"k" * 32, b"o" * 24
BODY = b'{"status": "succeeded", "result": 7}'


async def test_request_goes_out_as_it_was_made() -> None:
    with service() as (url, seen):
        answer = await post(url, {"x-own": "1"}, b'{"a": 1}')
    assert (answer.status, answer.body, answer.error) == (200, b"ok", "")
    ((headers, body),) = seen
    assert (headers["x-own"], headers["accept-encoding"], body) == ("1", "identity", b'{"a": 1}')


async def test_proxies_of_the_environment_are_no_business_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with service() as (url, _):
        assert (await post(url)).status == 200


async def test_redirect_is_an_answer_and_not_followed() -> None:
    with service(status=302, location="http://127.0.0.1:9/") as (url, seen):
        answer = await post(url)
    assert (answer.status, len(seen)) == (302, 1)


async def test_answer_is_read_to_its_bound_and_no_further() -> None:
    with service(body=b"x" * 500_000) as (url, _):
        answer = await post(url, bytes_max=1_000)
    assert (len(answer.body), answer.error) == (1_000, "the service's answer is larger than 1,000 bytes")


async def test_compressed_answer_that_nobody_asked_for_is_a_fault() -> None:
    with service(content_encoding="gzip") as (url, _):
        assert "compressed" in (await post(url)).error


async def test_nobody_there_is_said_without_the_path() -> None:
    with service() as (url, _):
        pass
    with pytest.raises(EnvironmentFault) as caught:
        await post(url + "/secret?key=1")
    assert caught.value.what == f"no connection to {url.removeprefix('http://')}"


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "xn--a.example", "a-.example", "-a.example", "a..b"])
async def test_host_that_is_no_name_is_a_fault_and_no_crash(host: str) -> None:
    with pytest.raises(EnvironmentFault):
        await post(f"http://{host}:1/")


async def test_rubbish_for_an_answer_is_a_broken_connection() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def rubbish(stream: trio.SocketStream) -> None:
        await stream.receive_some(1_000)
        await stream.send_all(b"\x00\xff rubbish\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, rubbish, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(EnvironmentFault, match="broke"):
            await post(f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


def test_agent_that_calls_nobody_has_not_loaded_what_it_would_take() -> None:
    code = (
        "import sys, meshpeer.app.agent; print([one for one in ('httpx', 'httpcore') if one in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- secrets ------------------------------------------------------------


def test_secrets_are_read_newest_first(tmp_path: Path) -> None:
    path = secret_file(tmp_path, [KEY, OLD])
    assert read_keys(path) == (KEY, OLD)


@pytest.mark.parametrize(
    ("content", "mode", "what"),
    [
        ("whsec_" + base64.b64encode(KEY).decode(), 0o640, "can be read or written by others"),
        ("", 0o600, "are not one to 8 lines"),
        ("password", 0o600, "are not one to 8 lines"),
        ("whsec_" + base64.b64encode(b"short").decode(), 0o600, "are not one to 8 lines"),
    ],
)
def test_secrets_that_can_not_be_used_are_named_and_not_shown(
    tmp_path: Path, content: str, mode: int, what: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(LocalFault) as caught:
        read_keys(path)
    assert what in caught.value.what
    assert not content or content not in caught.value.what + caught.value.hint


def test_absent_secrets_are_not_the_same_as_none(tmp_path: Path) -> None:
    with pytest.raises(LocalFault):
        read_keys(tmp_path / "nothing")


# --- who calls back -----------------------------------------------------


async def test_token_alone_authorises_where_there_is_no_secret() -> None:
    it = Receiver(())
    assert await it.receive({}) == (200, "")
    assert it.tokens == [hashlib.sha256(b"token").digest()]


@pytest.mark.parametrize("keys", [(KEY,), (OLD, KEY)])
async def test_with_a_secret_the_signature_is_asked_for_too(keys: Sequence[bytes]) -> None:
    it = Receiver(keys)
    assert await it.receive(sign([KEY], "m", int(NOW.unix_s), BODY)) == (200, "")
    for forged in ({}, sign([b"x" * 24], "m", int(NOW.unix_s), BODY), sign([KEY], "m", 1_799_999_000, BODY)):
        status, why = await it.receive(forged)
        assert status == 401
        assert why
    assert len(it.tokens) == 1


async def test_secret_that_can_not_be_read_lets_nobody_through() -> None:
    def keys() -> Sequence[bytes]:
        raise LocalFault("this node's webhook secrets can be read or written by others")

    it = Receiver(())
    it.webhooks.rules.keys = keys
    assert (await it.receive({}))[0] == 503
    assert it.tokens == []


async def test_bad_body_is_said_and_counts_for_nothing() -> None:
    it = Receiver(())
    status, why = await it.receive({}, b'{"status": "done"}')
    assert (status, it.tokens) == (400, [])
    assert dict(it.counters.counted) == {Counter.CALLBACKS_REFUSED: 1}
    assert "status" in why


# --- helpers ------------------------------------------------------------


class Receiver:
    """Takes call-backs; whoever waits is told at once that it is kept."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.tokens: list[bytes] = []
        self.counters = Counters()

        async def nobody(*_: object) -> str:
            raise AssertionError

        self.webhooks = Webhooks(
            rules=WebhookRules(allow=(), keys=lambda: keys, own_ports=tuple, callback_base=nobody),
            caller=HttpCaller(),
            blobs=cast(Blobs, None),
            clock=SimpleNamespace(now=lambda: NOW),
            entropy=bytes,
            record_of=nobody,  # type: ignore[arg-type]
            post=self.take,
            nursery=cast(trio.Nursery, None),
            tally=self.counters,
        )

    def take(self, event: object) -> None:
        assert isinstance(event, CallbackReceived)
        self.tokens.append(event.token)
        self.webhooks.answer(AnswerCallback(asked=event.asked, known=True, after=None))

    async def receive(self, headers: dict[str, str], body: bytes = BODY) -> tuple[int, str]:
        return await self.webhooks.receive("token", headers, body)


async def post(
    url: str, headers: dict[str, str] | None = None, body: bytes = b"{}", bytes_max: int = 100_000
):  # type: ignore[no-untyped-def]
    caller = HttpCaller()
    try:
        return await caller.post(url, headers or {}, body, bytes_max=bytes_max)
    finally:
        await caller.close()


@contextmanager
def service(
    status: int = 200, body: bytes = b"ok", **headers: str
) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    seen: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            seen.append(({name.lower(): value for name, value in self.headers.items()}, sent))
            self.send_response(status)
            for name, value in {**headers, "content_length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def secret_file(folder: Path, keys: Sequence[bytes]) -> Path:
    path = folder / "secret"
    path.write_text("".join(f"whsec_{base64.b64encode(one).decode()}\n" for one in keys))
    path.chmod(0o600)
    return path
