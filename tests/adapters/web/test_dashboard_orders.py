"""Buttons of the dashboard, and logs: what it takes to give an order, over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
import trio
from boards import FakeBoard
from pages import Running, dashboard

from meshpeer.adapters.web.access import Access, order_refusal
from meshpeer.adapters.web.dashboard import ORDER_BYTES_MAX
from meshpeer.runtime.board import Order
from meshpeer.runtime.control import LogPiece

CANCEL = json.dumps({"what": "cancel", "job": "jabc"}).encode()
JSON = "application/json"


async def test_an_order_with_session_key_and_origin_is_obeyed() -> None:
    async with dashboard() as it:
        headers = await opened(it)
        answer = await it.get("/dashboard/orders", headers, "POST", CANCEL)
    assert (answer.status, json.loads(answer.body)) == (200, {"said": "cancel is done"})
    assert it.board.orders == [Order(what="cancel", job="jabc")]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"cookie": None}, 403),
        ({"cookie": "meshpeer-PORT=guess"}, 403),
        ({"x-meshpeer-key": None}, 403),
        ({"x-meshpeer-key": ""}, 403),
        ({"x-meshpeer-key": "guess"}, 403),
        ({"origin": None}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"host": "rebound.example:PORT"}, 421),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data"}, 415),
        ({"content-type": None}, 415),
    ],
)
async def test_an_order_that_lacks_one_thing_has_no_effect(
    changed: Mapping[str, str | None], status: int
) -> None:
    async with dashboard() as it:
        headers = await opened(it)
        for name, value in changed.items():
            if value is None:
                del headers[name]
            else:
                headers[name] = value.replace("PORT", str(it.port))
        answer = await it.get("/dashboard/orders", headers, "POST", CANCEL)
    assert answer.status == status
    assert it.board.orders == []


async def test_a_cookie_alone_lets_look_and_gives_no_order() -> None:
    """Another server of this machine can be sent the cookie (RFC 6265, 8.5): with it the page says no key."""
    async with dashboard() as it:
        headers = await opened(it)
        page = await it.get("/dashboard/", {"cookie": headers["cookie"]})
        key_of_another = await opened(it)
        headers["x-meshpeer-key"] = key_of_another["x-meshpeer-key"]
        answer = await it.get("/dashboard/orders", headers, "POST", CANCEL)
    assert page.status == 200
    assert "meshpeer-key" not in page.body
    assert answer.status == 403
    assert it.board.orders == []


async def test_a_second_tab_of_one_browser_keeps_the_session_and_its_key() -> None:
    async with dashboard() as it:
        headers = await opened(it)
        second = await it.get(it.path_with_token, {"cookie": headers["cookie"]})
    assert it.cookie_of(second) == headers["cookie"]
    assert key_in(second.body) == headers["x-meshpeer-key"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"what": 1}', 400),
        (b'{"what": "cancel", "root": true}', 400),
        (b'{"what": "\xff"}', 400),
        (b'{"what": "explode"}', 409),
        (b'{"what": "' + b"x" * ORDER_BYTES_MAX + b'"}', 413),
    ],
)
async def test_an_order_that_is_none_is_refused_whole(body: bytes, status: int) -> None:
    async with dashboard() as it:
        answer = await it.get("/dashboard/orders", await opened(it), "POST", body)
    assert answer.status == status
    assert it.board.orders == []


async def test_a_log_is_read_with_the_key_alone_and_letters_are_never_torn() -> None:
    euro = "€".encode()
    pieces = [
        LogPiece(data=b"one " + euro[:1], offset=5, finished=False, attempt=1, node="bravo"),
        LogPiece(data=euro[1:] + b"\xff", offset=8, finished=False, attempt=1, node="bravo"),
        LogPiece(data=b"again", offset=5, finished=True, attempt=2, node="charlie"),
    ]
    async with dashboard(FakeBoard(pieces=pieces)) as it:
        headers = await opened(it)
        without = await it.get("/dashboard/log?job=j&task=t&stream=stdout", {"cookie": headers["cookie"]})
        read = await it.get("/dashboard/log?job=j&task=t&stream=stdout", headers)
        gone = await it.get("/dashboard/log?job=j&task=t&stream=stdout", headers)
    assert without.status == 403
    assert events_in(read.body) == [
        ("text", {"text": "one ", "node": "bravo", "again": False}),
        ("text", {"text": "€\ufffd", "node": "bravo", "again": False}),
        ("text", {"text": "again", "node": "charlie", "again": True}),
        ("end", {"node": "charlie"}),
    ]
    assert events_in(gone.body) == [("fault", {"what": "there is no task 't'", "hint": "look again"})]


async def test_reasons_are_told_to_who_has_the_key() -> None:
    async with dashboard() as it:
        headers = await opened(it)
        without = await it.get("/dashboard/why?to=bravo", {"cookie": headers["cookie"]})
        of_member = await it.get("/dashboard/why?to=bravo", headers)
        of_job = await it.get("/dashboard/why?job=j", headers)
    assert without.status == 403
    assert json.loads(of_member.body)["answer"] == "bravo is reached directly"
    assert json.loads(of_job.body)["state"] == "running"


async def test_orders_that_hang_are_bounded() -> None:
    stuck = trio.Event()

    class Stuck(FakeBoard):
        async def order(self, order: Order) -> str:
            await stuck.wait()
            return "done"

    async with dashboard(Stuck()) as it, trio.open_nursery() as nursery:
        headers = await opened(it)
        statuses: list[int] = []

        async def give() -> None:
            statuses.append((await it.get("/dashboard/orders", headers, "POST", CANCEL)).status)
            if statuses == [503, 503]:
                stuck.set()

        for _ in range(10):
            nursery.start_soon(give)
    assert sorted(statuses) == [200] * 8 + [503] * 2


def test_keys_are_of_one_session_of_one_agent() -> None:
    numbers = iter(range(1, 100))
    one, other = (Access(lambda count: next(numbers).to_bytes(count, "big"), lambda: 0.0) for _ in range(2))
    first, second = one.exchange(one.token), one.exchange(one.token)
    assert first is not None
    assert second is not None
    assert len({one.key_of(first), one.key_of(second), other.key_of(first), first, second, one.token}) == 6
    assert one.may_order(f"meshpeer-1={first}", 1, one.key_of(first))
    assert not one.may_order(f"meshpeer-1={first}", 1, one.key_of(second))
    assert not one.may_order(f"meshpeer-1={first}", 2, one.key_of(first))
    assert not other.may_order(f"meshpeer-1={first}", 1, other.key_of(first))


def test_an_order_of_no_page_is_refused() -> None:
    assert order_refusal({"content-type": JSON}) == (403, "an order says its origin")


# --- helpers ------------------------------------------------------------


async def opened(it: Running) -> dict[str, str]:
    """Opens the link anew; returns the headers that a button of the page sends."""
    page = await it.get(it.path_with_token)
    return {
        "cookie": it.cookie_of(page),
        "x-meshpeer-key": key_in(page.body),
        "origin": f"http://127.0.0.1:{it.port}",
        "content-type": JSON,
        "sec-fetch-site": "same-origin",
    }


def key_in(page: str) -> str:
    (key,) = re.findall(r'<meta name="meshpeer-key" content="([\w-]+)">', page)
    return str(key)


def events_in(text: str) -> list[tuple[str, object]]:
    return [(kind, json.loads(data)) for kind, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)]
