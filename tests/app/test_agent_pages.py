"""A whole agent, alone on loopback and without an interface, and the page of its figures."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from agents import founded_folder, free_port, running, settings_of, until
from prometheus_client.parser import text_string_to_metric_families

from meshpeer.core.counters import Counter

LOOPBACK = "127.0.0.1"


async def test_an_agent_shows_its_figures_once_it_is_ready(folder: Path, port: int) -> None:
    async with running(settings_of(folder, web_port=port)) as agent:
        agent.counters.add(Counter.HEALING_DIALS, 7)
        await until(lambda: agent.chores.pages_port == port, within_s=20)
        figures = await trio.to_thread.run_sync(scrape, port)

    assert figures["meshpeer_healing_dials_total", ()] == 7
    assert figures["meshpeer_members", (("state", "alive"),)] == 1
    assert figures["meshpeer_links", ()] == 0


async def test_an_agent_whose_port_is_taken_goes_on_and_says_so(folder: Path, port: int) -> None:
    with socket.create_server((LOOPBACK, port)):
        async with running(settings_of(folder, web_port=port)) as agent:
            await until(lambda: agent.chores.pages_fault is not None, within_s=20)
            status = await agent.api.status()

    assert status.health == "ok"
    assert [one for one in status.warnings if f"port {port} of 127.0.0.1 can't be had" in one]


async def test_port_0_means_no_page(folder: Path) -> None:
    async with running(settings_of(folder, web_port=0)) as agent:
        await agent.chores.open_pages()  # returns at once, for there is nothing to serve

        assert (agent.chores.pages_port, agent.chores.pages_fault) == (0, None)


# --- helpers ------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    with founded_folder(web_port=0) as path:
        yield path


@pytest.fixture
def port() -> int:
    return free_port()


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
