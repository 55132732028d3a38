"""The dashboard over real sockets: who gets in, what is shown, and what every answer says to a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from boards import FakeBoard
from pages import changes_in, dashboard, heard

from meshpeer.adapters.web import markup
from meshpeer.adapters.web.access import SESSION_S, SESSIONS_MAX, Access, refusal
from meshpeer.adapters.web.dashboard import FILES, HEADERS
from meshpeer.adapters.web.following import STREAMS_MAX
from meshpeer.runtime.board import CHANGES_MAX

STATIC = Path(markup.__file__).with_name("static")
BROWSER = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FETCH = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}


async def test_the_link_opens_the_page_and_a_session() -> None:
    async with dashboard() as it:
        opened = await it.get(it.path_with_token, BROWSER)
        again = await it.get("/dashboard/", {"cookie": it.cookie_of(opened)})
    assert opened.status == again.status == 200
    assert 'src="main.js"' in opened.body
    assert it.dashboard.access.token not in opened.body + again.body


async def test_the_page_itself_holds_nothing_of_the_mesh() -> None:
    async with dashboard() as it:
        opened = await it.get(it.path_with_token, BROWSER)
    assert it.board.looks == 0
    assert "alpha" not in opened.body


async def test_the_cookie_is_for_this_page_alone_and_no_script() -> None:
    async with dashboard() as it:
        opened = await it.get(it.path_with_token)
    cookie = opened.headers["set-cookie"].lower()
    assert cookie.startswith(f"meshpeer-{it.port}=")
    for part in ("httponly", "samesite=strict", "path=/dashboard/"):
        assert part in cookie
    assert it.dashboard.access.token.lower() not in cookie


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/",
        "/dashboard/?token=",
        "/dashboard/?token=guess",
        "/dashboard/events",
        "/dashboard/events?job=j",
    ],
)
async def test_without_token_or_session_nothing_of_the_mesh_is_shown(path: str) -> None:
    async with dashboard() as it:
        answer = await it.get(path)
    assert answer.status == 401
    assert "alpha" not in answer.body
    assert "set-cookie" not in answer.headers
    assert it.board.looks == 0


async def test_a_session_ends() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        it.board.now_s = SESSION_S - 1
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 200
        it.board.now_s = SESSION_S + 1
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 401


async def test_the_link_opened_again_puts_off_the_end_of_the_session() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        it.board.now_s = SESSION_S - 1
        assert (await it.get(it.path_with_token, {"cookie": cookie})).status == 200
        it.board.now_s = 2 * SESSION_S - 2
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 200
        it.board.now_s = 2 * SESSION_S
        assert (await it.get("/dashboard/", {"cookie": cookie})).status == 401


@pytest.mark.parametrize("odd", ["a=b c", "flag", "k@v=1", 'a="', "=", "a=b,c"])
async def test_odd_cookies_of_other_servers_of_this_machine_keep_nobody_out(odd: str) -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        for cookies in (f"{odd}; {cookie}", f"{cookie}; {odd}"):
            assert (await it.get("/dashboard/", {"cookie": cookies})).status == 200


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
    assert ("main.js" in answer.body) == (status == 200)


async def test_every_answer_carries_the_rules_for_browsers() -> None:
    async with dashboard() as it:
        for path in (it.path_with_token, "/dashboard/", "/dashboard/main.js", "/dashboard/nothing"):
            answer = await it.get(path)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, path
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        refused = await it.get("/dashboard/", {"host": "rebound.example"})
        assert refused.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/events", "/dashboard/log", "/dashboard/main.js"])
async def test_nothing_but_orders_takes_orders(method: str, path: str) -> None:
    async with dashboard() as it:
        assert (await it.get(path, method=method)).status == 405


def test_no_script_of_the_page_makes_markup_of_text() -> None:
    scripts = sorted(STATIC.glob("*.js"))
    assert len(scripts) > 5
    for path in scripts:
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert word not in text, path.name


def test_the_page_asks_no_other_host_and_has_nothing_inline() -> None:
    for path in sorted(STATIC.iterdir()):
        text = path.read_text("utf-8")
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text), path.name
        if path.suffix == ".html":
            assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text), path.name


def test_every_own_file_is_served_and_every_script_is_found() -> None:
    names = {path.name for path in STATIC.iterdir()} - {"page.html", "closed.html"}
    assert names == set(FILES)
    for path in STATIC.glob("*.js"):
        assert set(re.findall(r'from "\./([\w.]+)"', path.read_text("utf-8"))) <= names


async def test_the_page_follows_by_differences() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        async with await it.following(cookie, "?job=jabc") as stream:
            first = await heard(stream, "bravo")
            it.board.names.append("charlie")
            it.board.names.remove("alpha")
            second = await heard(stream, "charlie")
    assert first.index("event: start") < first.index("alpha")
    assert changes_in(first) == [
        ["put", "members", "alpha", {"name": "alpha"}],
        ["put", "members", "bravo", {"name": "bravo"}],
    ]
    assert changes_in(second) == [
        ["drop", "members", "alpha"],
        ["put", "members", "charlie", {"name": "charlie"}],
    ]
    assert set(it.board.jobs_asked_for) == {"jabc"}


async def test_a_large_state_comes_in_messages_of_bounded_size() -> None:
    names = [f"node-{number}" for number in range(CHANGES_MAX + 500)]
    async with dashboard(FakeBoard(names=names)) as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        async with await it.following(cookie) as stream:
            text = await heard(stream, names[-1])
    messages = re.findall(r"data: (\[.*\])", text)
    assert [len(json.loads(one)) for one in messages] == [CHANGES_MAX, 500]


async def test_a_stream_ends_with_its_session() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        async with await it.following(cookie) as stream:
            await heard(stream, "bravo")
            it.board.now_s = SESSION_S + 1
            it.board.names.append("charlie")
            rest = await heard(stream, "0\r\n\r\n")
    assert "charlie" not in rest


async def test_pages_that_follow_are_bounded_and_give_their_places_back() -> None:
    async with dashboard() as it:
        cookie = it.cookie_of(await it.get(it.path_with_token))
        head = f"GET /dashboard/events HTTP/1.1\r\nhost: 127.0.0.1:{it.port}\r\ncookie: {cookie}\r\n\r\n"
        streams = []
        for _ in range(STREAMS_MAX):
            stream = await it.following(cookie)
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
