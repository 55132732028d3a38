"""The dashboard over real sockets: who gets in, what is shown, and what every answer says to a browser."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from boards import BoardViews, board

from meshpeer.adapters.web.access import SESSION_S, SESSIONS_MAX, Access, refusal
from meshpeer.adapters.web.dashboard import HEADERS, STREAMS_MAX, Dashboard
from meshpeer.adapters.web.server import Site, serve_pages
from meshpeer.adapters.web.snapshot import Snapshot

BROWSER = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FETCH = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}


async def test_the_link_opens_the_page_and_a_session() -> None:
    async with dashboard() as it:
        opened = await it.get(it.path_with_token, BROWSER)
        again = await it.get("/dashboard/", {"cookie": it.cookie_of(opened)})
    assert opened.status == again.status == 200
    for name in ("alpha", "bravo", "flipbook", "15/24, 1 failed"[3:]):
        assert name in opened.body
        assert name in again.body
    assert it.board.access.token not in opened.body + again.body


async def test_the_cookie_is_for_this_page_alone_and_no_script() -> None:
    async with dashboard() as it:
        opened = await it.get(it.path_with_token)
    cookie = opened.headers["set-cookie"].lower()
    assert cookie.startswith(f"meshpeer-{it.port}=")
    for part in ("httponly", "samesite=strict", "path=/dashboard/"):
        assert part in cookie
    assert it.board.access.token.lower() not in cookie


@pytest.mark.parametrize(
    "path", ["/dashboard/", "/dashboard/?token=", "/dashboard/?token=guess", "/dashboard/events"]
)
async def test_without_token_or_session_nothing_of_the_mesh_is_shown(path: str) -> None:
    async with dashboard() as it:
        answer = await it.get(path)
    assert answer.status == 401
    assert "alpha" not in answer.body
    assert "set-cookie" not in answer.headers
    assert it.views.looks == 0


async def test_a_session_ends() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        it.views.now_s = SESSION_S - 1
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 200
        it.views.now_s = SESSION_S + 1
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "rebound.example"}, 421),
        ({"host": "rebound.example:PORT"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"host": "127.0.0.1:PORT.rebound.example"}, 421),
        ({"host": "localhost:PORT"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "http://127.0.0.1:PORT"}, 200),
        ({**FETCH, "sec-fetch-site": "cross-site"}, 403),
        ({**FETCH, "sec-fetch-site": "same-site"}, 403),
        ({**FETCH, "sec-fetch-site": "same-origin"}, 200),
        ({**BROWSER, "sec-fetch-site": "cross-site"}, 200),
        ({**BROWSER, "sec-fetch-dest": "iframe"}, 403),
        ({**BROWSER, "sec-fetch-dest": "object"}, 403),
    ],
)
async def test_only_this_page_and_a_person_are_answered(headers: Mapping[str, str], status: int) -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        said = {name: value.replace("PORT", str(it.port)) for name, value in headers.items()}
        answer = await it.get("/dashboard/", {"cookie": cookie, **said})
    assert answer.status == status
    assert ("alpha" in answer.body) == (status == 200)


async def test_every_answer_carries_the_rules_for_browsers() -> None:
    async with dashboard() as it:
        for path in (it.path_with_token, "/dashboard/", "/dashboard/script.js", "/dashboard/nothing"):
            answer = await it.get(path)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, path
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        refused = await it.get("/dashboard/", {"host": "rebound.example"})
        assert refused.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_dashboard_takes_no_orders(method: str) -> None:
    async with dashboard() as it:
        assert (await it.get(it.path_with_token, method=method)).status == 405


async def test_what_others_wrote_is_never_markup() -> None:
    evil = "<script>alert(1)</script>\"'&"
    async with dashboard(BoardViews(names=[evil], job_names=[evil], warnings=(evil,), health=evil)) as it:
        answer = await it.get(it.path_with_token)
    assert "<script>alert" not in answer.body
    assert answer.body.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 5


async def test_the_page_follows_what_happens() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        stream = await trio.open_tcp_stream("127.0.0.1", it.port)
        async with stream:
            request = (
                f"GET /dashboard/events HTTP/1.1\r\nhost: 127.0.0.1:{it.port}\r\ncookie: {cookie}\r\n\r\n"
            )
            await stream.send_all(request.encode())
            first = await heard(stream, "bravo")
            it.views.names.append("charlie")
            second = await heard(stream, "charlie")
    assert "charlie" not in first
    assert json.loads(second[second.index("data: ") + 6 :].split("\n")[0])


async def test_pages_that_follow_are_bounded_and_give_their_places_back() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        head = f"GET /dashboard/events HTTP/1.1\r\nhost: 127.0.0.1:{it.port}\r\ncookie: {cookie}\r\n\r\n"
        streams = []
        for _ in range(STREAMS_MAX):
            stream = await trio.open_tcp_stream("127.0.0.1", it.port)
            await stream.send_all(head.encode())
            await heard(stream, "alpha")
            streams.append(stream)
        assert (await it.get("/dashboard/events", {"cookie": cookie})).status == 503
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(10):
            stream = await trio.open_tcp_stream("127.0.0.1", it.port)
            while True:
                await stream.send_all(head.encode())
                if " 200" in (await stream.receive_some(10_000)).decode():
                    break
                await stream.aclose()
                stream = await trio.open_tcp_stream("127.0.0.1", it.port)
            await stream.aclose()


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    access = Access(lambda count: next(numbers).to_bytes(count, "big"), lambda: 0.0)
    sessions = [access.exchange(access.token) for _ in range(SESSIONS_MAX + 1)]
    admitted = [access.admits(f"meshpeer-1={one}", 1) for one in sessions]
    assert admitted == [False] + [True] * SESSIONS_MAX


@pytest.mark.parametrize(
    "cookies", ["", "meshpeer-1=", "meshpeer-1=guess", "x" * 10_000, "meshpeer-1", "=;;="]
)
def test_no_cookie_but_a_sessions_is_admitted(cookies: str) -> None:
    access = Access(bytes, lambda: 0.0)
    access.exchange(access.token)
    assert not access.admits(cookies, 1)


def test_a_request_without_a_host_is_refused() -> None:
    assert refusal({}, 1, top_level=True) is not None


numbers = iter(range(1, 1_000))

# --- helpers ------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Running:
    port: int
    board: Dashboard
    views: BoardViews

    @property
    def path_with_token(self) -> str:
        return f"/dashboard/?token={self.board.access.token}"

    def cookie_of(self, answer: Answer) -> str:
        return answer.headers["set-cookie"].partition(";")[0]

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        return await trio.to_thread.run_sync(self._get, method, path, headers or {})

    def _get(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read().decode())
        finally:
            connection.close()


@asynccontextmanager
async def dashboard(views: BoardViews | None = None) -> AsyncIterator[Running]:
    shown = views or BoardViews()
    made = board(shown)

    def look() -> Snapshot:
        raise AssertionError("nobody asked for figures")

    async def receive(token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        raise AssertionError("nobody calls back")

    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_pages, Site(look=look, receive=receive, dashboard=made), 0)
        yield Running(port, made, shown)
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
