"""The page of figures, as a scraper on this machine meets it: over a real socket, read by Prometheus' own
parser."""

from __future__ import annotations

import http.client
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from boards import closed_board
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from meshpeer.adapters.web.server import LOOPBACK, Site, serve_pages
from meshpeer.adapters.web.snapshot import AgreementFigures, Snapshot
from meshpeer.core.counters import Counter, Counters
from meshpeer.core.errors import EnvironmentFault

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def test_the_page_has_what_was_counted() -> None:
    counters = Counters()
    counters.add(Counter.SIGNATURES_BAD, 3)
    counters.add_kind("in", "Ping", 40)
    counters.add_kind("in", "Ping", 41)

    async with pages(make_snapshot(counters)) as port:
        figures = figures_of(await get(port))

    assert figures["meshpeer_signatures_bad_total", ()] == 3
    assert figures["meshpeer_refutations_total", ()] == 0
    assert figures["meshpeer_link_frames_total", (("direction", "in"), ("kind", "Ping"))] == 2
    assert figures["meshpeer_link_bytes_total", (("direction", "in"), ("kind", "Ping"))] == 81
    assert figures["meshpeer_members", (("state", "alive"),)] == 5
    assert figures["meshpeer_members", (("state", "dead"),)] == 1
    assert figures["meshpeer_links", ()] == 4
    assert figures["meshpeer_event_loop_lag_seconds", ()] == 0.25
    assert figures["meshpeer_local_health", ()] == 3
    assert figures["meshpeer_build_info", (("version", "1.2.3"),)] == 1
    assert figures["meshpeer_agreement_members", (("state", "differ"),)] == 1
    assert figures["meshpeer_agreement_members", (("state", "agree"),)] == 4
    assert figures["meshpeer_agreement_differing_members", (("part", "charter"),)] == 1
    assert figures["meshpeer_agreement_difference_max_seconds", ()] == 12.5


async def test_every_counter_is_on_the_page_under_its_own_name_and_meaning() -> None:
    async with pages(make_snapshot()) as port:
        answer = await get(port)

    helps = {one.name: one.documentation for one in read_text(answer.body)}
    for counter in Counter:
        assert helps[f"meshpeer_{counter}"] == counter.meaning


async def test_the_page_has_the_process_itself() -> None:
    async with pages(make_snapshot()) as port:
        figures = figures_of(await get(port))

    assert figures["process_resident_memory_bytes", ()] > 1_000_000
    assert ("process_cpu_seconds_total", ()) in figures


async def test_a_scraper_gets_openmetrics_where_it_asks_for_it() -> None:
    async with pages(make_snapshot()) as port:
        plain = await get(port)
        asked = await get(port, accept=OPENMETRICS)

    assert plain.kind.startswith("text/plain; version=")
    assert asked.kind.startswith("application/openmetrics-text;")
    # Strict: it refuses a missing "# EOF", a wrong suffix, an interleaved family.
    assert {one.name for one in read_openmetrics(asked.body)} >= {"meshpeer_links", "meshpeer_frames_in"}


async def test_each_request_looks_anew() -> None:
    counters = Counters()

    async with pages(make_snapshot(counters)) as port:
        before = figures_of(await get(port))["meshpeer_grafts_out_total", ()]
        counters.add(Counter.GRAFTS_OUT)
        after = figures_of(await get(port))["meshpeer_grafts_out_total", ()]

    assert (before, after) == (0, 1)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("LOCALHOST:51822", 200),
        ("rebound.example", 400),
        ("127.0.0.1.rebound.example", 400),
        ("localhost@rebound.example", 400),
        ("", 400),
    ],
)
async def test_only_names_of_loopback_are_answered(host: str, status: int) -> None:
    async with pages(make_snapshot()) as port:
        answer = await get(port, host=host)

    assert answer.status == status
    assert ("meshpeer_links" in answer.body) == (status == 200)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/metrics/", 404), ("GET", "/", 404), ("GET", "/v1/status", 404)],
)
async def test_nothing_else_is_served(method: str, path: str, status: int) -> None:
    async with pages(make_snapshot()) as port:
        assert (await get(port, method=method, path=path)).status == status


async def test_the_pages_are_on_loopback_alone() -> None:
    async with pages(make_snapshot()) as port:
        # 127.0.0.2 is this machine, too, but not the address that was bound: a listener on all has both.
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))


async def test_a_port_in_use_is_said_and_starts_nothing() -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(EnvironmentFault) as caught:
            await serve_pages(site_of(make_snapshot), port)

    assert (
        caught.value.what
        == f"no /metrics and no call-backs: port {port} of 127.0.0.1 can't be had: Address already in use"
    )
    assert "web_port" in caught.value.hint


# --- helpers ------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    kind: str
    body: str


def make_snapshot(counters: Counters | None = None) -> Snapshot:
    return Snapshot(
        version="1.2.3",
        counters=counters or Counters(),
        members={"alive": 5, "suspect": 0, "dead": 1, "left": 2},
        links=4,
        event_loop_lag_s=0.25,
        local_health=3,
        agreement=AgreementFigures(
            members={"agree": 4, "differ": 1, "unknown": 0}, parts={"charter": 1}, longest_s=12.5
        ),
    )


def site_of(look: Callable[[], Snapshot]) -> Site:
    async def receive(token: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        raise AssertionError("nobody calls back")

    return Site(look=look, receive=receive, dashboard=closed_board())


@asynccontextmanager
async def pages(snapshot: Snapshot) -> AsyncIterator[int]:
    """Serves on a free port, which it yields."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_pages, site_of(lambda: snapshot), 0)
        nursery.cancel_scope.cancel()


async def get(
    port: int, *, method: str = "GET", path: str = "/metrics", host: str = "localhost", accept: str = ""
) -> Answer:
    def ask() -> Answer:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host)
            if accept:
                connection.putheader("Accept", accept)
            connection.endheaders()
            response = connection.getresponse()
            return Answer(response.status, response.getheader("content-type", ""), response.read().decode())
        finally:
            connection.close()

    return await trio.to_thread.run_sync(ask)


def figures_of(answer: Answer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    assert answer.status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_text(answer.body)
        for sample in family.samples
    }
