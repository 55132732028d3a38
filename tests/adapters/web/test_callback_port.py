"""The port for call-backs, as a service meets it, and as a page in a browser would: over real sockets."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from boards import closed_board

from meshpeer.adapters.web.server import Site, serve_pages
from meshpeer.adapters.web.snapshot import Snapshot
from meshpeer.core.jobs.callbacks import CALLBACK_BYTES_MAX

JSON = {"content-type": "application/json"}
BODY = b'{"status": "succeeded", "result": 7}'


async def test_call_back_reaches_the_agent_whole() -> None:
    async with callback_port() as it:
        status, said = await it.post("/v1/callbacks/abc", {**JSON, "Webhook-Id": "m"}, BODY)
    assert (status, said) == (200, {"kept": True})
    ((token, headers, body),) = it.received
    assert (token, headers["webhook-id"], body) == ("abc", "m", BODY)


@pytest.mark.parametrize("verdict", [(401, "forged"), (404, "unknown"), (503, "later"), (400, "bad")])
async def test_the_agents_verdict_is_the_answer(verdict: tuple[int, str]) -> None:
    async with callback_port() as it:
        it.verdict = verdict
        assert await it.post("/v1/callbacks/abc", JSON, BODY) == (verdict[0], {"error": verdict[1]})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "text/plain; application/json"}, 415),
        ({}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({**JSON, "origin": "http://evil.example"}, 403),
        ({**JSON, "origin": "null"}, 403),
        ({**JSON, "sec-fetch-site": "cross-site"}, 403),
        ({**JSON, "sec-fetch-site": "none"}, 403),
        ({**JSON, "host": "rebound.example"}, 400),
        ({**JSON, "host": "127.0.0.1.rebound.example"}, 400),
        ({**JSON, "host": "proxy.example"}, 200),
    ],
)
async def test_pages_and_forms_of_a_browser_do_not_get_through(
    headers: Mapping[str, str], status: int
) -> None:
    async with callback_port() as it:
        answered, _ = await it.post("/v1/callbacks/abc", headers, BODY)
    assert answered == status
    assert bool(it.received) == (status == 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_nothing_but_a_post_is_a_call_back(method: str) -> None:
    async with callback_port() as it:
        status, _ = await it.post("/v1/callbacks/abc", JSON, b"", method=method)
    assert (status, it.received) == (405, [])


async def test_no_answer_lets_another_origin_read_it() -> None:
    async with callback_port() as it:
        await it.post("/v1/callbacks/abc", {**JSON, "origin": "http://evil.example"}, BODY)
        await it.post("/v1/callbacks/abc", JSON, BODY)
    for headers in it.answered:
        assert not [name for name in headers if name.startswith("access-control-")]


async def test_body_beyond_the_bound_is_refused_while_it_comes() -> None:
    async with callback_port() as it:
        status, _ = await it.post("/v1/callbacks/abc", JSON, b" " * (CALLBACK_BYTES_MAX + 1))
    assert (status, it.received) == (413, [])


# --- helpers ------------------------------------------------------------


@dataclass
class CallbackPort:
    port: int = 0
    verdict: tuple[int, str] = (200, "")
    received: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    answered: list[dict[str, str]] = field(default_factory=list)

    async def receive(self, token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        self.received.append((token, headers, body))
        return self.verdict

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, method: str = "POST"
    ) -> tuple[int, object]:
        return await trio.to_thread.run_sync(self._post, method, path, headers, body)

    def _post(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="host" in headers)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                connection.send(body)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = connection.getresponse()
            self.answered.append({name.lower(): value for name, value in answer.getheaders()})
            content = answer.read()
            kind = answer.getheader("content-type", "")
            return answer.status, json.loads(content) if kind == "application/json" and content else None
        finally:
            connection.close()


@asynccontextmanager
async def callback_port() -> AsyncIterator[CallbackPort]:
    it = CallbackPort()

    def look() -> Snapshot:
        raise AssertionError("nobody asked for figures")

    site = Site(look=look, receive=it.receive, dashboard=closed_board(), callback_hosts=("proxy.example",))
    async with trio.open_nursery() as nursery:
        it.port = await nursery.start(serve_pages, site, 0)
        yield it
        nursery.cancel_scope.cancel()
