"""A dashboard on loopback, behind the real server: asked over real sockets."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from boards import FakeBoard, board

from meshpeer.adapters.web.dashboard import Dashboard
from meshpeer.adapters.web.server import Site, serve_pages
from meshpeer.adapters.web.snapshot import Snapshot


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Running:
    port: int
    dashboard: Dashboard
    board: FakeBoard

    @property
    def path_with_token(self) -> str:
        return f"/dashboard/?token={self.dashboard.access.token}"

    def cookie_of(self, answer: Answer) -> str:
        return answer.headers["set-cookie"].partition(";")[0]

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes = b""
    ) -> Answer:
        return await trio.to_thread.run_sync(self._get, method, path, headers or {}, body)

    async def following(self, cookie: str, query: str = "") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        head = f"GET /dashboard/events{query} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
        await stream.send_all(f"{head}cookie: {cookie}\r\n\r\n".encode())
        return stream

    def _get(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read().decode())
        finally:
            connection.close()


@asynccontextmanager
async def dashboard(shown: FakeBoard | None = None) -> AsyncIterator[Running]:
    fake = shown or FakeBoard()
    made = board(fake)

    def look() -> Snapshot:
        raise AssertionError("nobody asked for figures")

    async def receive(token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        raise AssertionError("nobody calls back")

    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_pages, Site(look=look, receive=receive, dashboard=made), 0)
        yield Running(port, made, fake)
        nursery.cancel_scope.cancel()


async def heard(stream: trio.SocketStream, word: str) -> str:
    """Reads until a word came; returns all that was read."""
    text = ""
    with trio.fail_after(10):
        while word not in text:
            piece = await stream.receive_some(65_536)
            assert piece, text
            text += piece.decode()
    return text


def changes_in(text: str) -> list[object]:
    return [change for one in re.findall(r"data: (\[.*\])", text) for change in json.loads(one)]
