"""What a service manager hears, on real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshpeer.adapters.systemd import Notifier

QUEUE_MAX = 5_000
"""More datagrams than wait on any machine (net.unix.max_dgram_qlen)."""


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_facts_arrive_in_one_message(kind: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@meshpeer-test-{os.getpid()}"
    with listening(address) as manager:
        assert await Notifier(address).tell("READY=1", "STATUS=alpha in home")
        assert manager.recv(4096) == b"READY=1\nSTATUS=alpha in home"


async def test_a_line_break_in_a_fact_makes_no_second_one(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as manager:
        await Notifier(address).tell("STATUS=a\nREADY=1")
        assert manager.recv(4096) == b"STATUS=a READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/", "@", "vsock:2:1234"])
async def test_without_a_socket_nobody_is_told(address: str) -> None:
    notifier = Notifier(address, watchdog_s=30.0)

    assert not notifier.listens
    assert notifier.watchdog_s == 0
    assert not await notifier.tell("READY=1")


async def test_a_manager_that_went_away_is_no_fault(tmp_path: Path) -> None:
    assert not await Notifier(str(tmp_path / "gone")).tell("READY=1")


async def test_a_manager_that_does_not_read_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshpeer.adapters.systemd.notify.SEND_S_MAX", 0.05)
    address = str(tmp_path / "notify")
    with listening(address):
        notifier = Notifier(address)
        for _ in range(QUEUE_MAX):
            if not await notifier.tell("STATUS=again"):
                break
        else:
            pytest.fail("the queue of a datagram socket has no end here")


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "A": "b",
    }

    notifier = Notifier.take(environment)

    assert (notifier.listens, notifier.watchdog_s) == (True, 30.0)
    assert environment == {"A": "b"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "many"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "-5"},
    ],
)
def test_no_sign_of_life_is_due_where_none_was_asked_of_this_process(variables: dict[str, str]) -> None:
    assert Notifier.take({"NOTIFY_SOCKET": "/run/n", **variables}).watchdog_s == 0


# --- helpers ------------------------------------------------------------


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        manager.settimeout(10)
        yield manager
