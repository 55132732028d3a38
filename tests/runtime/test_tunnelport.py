"""The keeper of WireGuard's own port: core hears of what comes, and why there is nothing is said once."""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.testing

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.probe_packets import MAGIC
from meshpeer.runtime.ports import Sending, TunnelPort
from meshpeer.runtime.tunnelport import RETRY_S, TunnelPortKeeper
from meshpeer.sim.tunnelport import MemoryTunnelPort, MemoryUnderlay

PORT = 51820


class Lab:
    def __init__(self, port: TunnelPort) -> None:
        self.posted: list[object] = []
        self.said: list[tuple[str, str]] = []
        self.keeper = TunnelPortKeeper(
            port,
            self.posted.append,
            lambda level, fact, fields: self.said.append((level, dict(fields)["reason"])),
        )


class BrokenPort:
    """A port that opens, and is lost after a while, or that does not open at all."""

    def __init__(self, *lasts_s: float) -> None:
        self.lasts_s = list(lasts_s)
        self.opened = 0

    async def serve(
        self,
        port: int,
        mark: int,
        heard: Callable[[ProbeHeard], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if not self.lasts_s:
            raise EnvironmentFault("not allowed", "be root")
        self.opened += 1
        task_status.started()
        await trio.sleep(self.lasts_s.pop(0))
        raise EnvironmentFault("lost", "wait")

    def send(self, probe: SendProbe) -> Sending:
        return Sending.LOST


async def test_core_hears_that_it_is_open_what_comes_and_what_was_too_long(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    underlay = MemoryUnderlay()
    here, there = Lab(MemoryTunnelPort(underlay, "192.0.2.1")), Lab(MemoryTunnelPort(underlay, "192.0.2.2"))
    for lab in (here, there):
        nursery.start_soon(lab.keeper.run, PORT, 0)
    await trio.sleep(1)
    assert here.posted == there.posted == [ProbePortOpened()]
    here.keeper.send(SendProbe(endpoint="192.0.2.2:51820", data=MAGIC))
    here.keeper.send(SendProbe(endpoint="192.0.2.2:51820", data=MAGIC + bytes(1_469)))
    assert there.posted[1:] == [ProbeHeard(source="192.0.2.1:51820", local="192.0.2.2", data=MAGIC)]
    assert here.posted[1:] == [ProbeTooLong(endpoint="192.0.2.2:51820", probe_bytes=1_473)]
    assert here.said == there.said == []


async def test_a_node_that_may_not_says_so_once_and_goes_without(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lab = Lab(BrokenPort())
    await lab.keeper.run(PORT, 0)
    assert lab.said == [("info", "not allowed")]
    assert lab.posted == []
    assert lab.keeper.fault is not None
    lab.keeper.send(SendProbe(endpoint="192.0.2.2:51820", data=MAGIC))


async def test_a_port_that_is_lost_is_opened_again(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    port = BrokenPort(1.0, 100.0)
    lab = Lab(port)
    nursery.start_soon(lab.keeper.run, PORT, 0)
    await trio.sleep(2)
    assert lab.keeper.fault is not None
    await trio.sleep(2 * RETRY_S)
    assert (port.opened, lab.keeper.fault) == (2, None)
    assert lab.said == [("warning", "lost")]
    assert lab.posted == [ProbePortOpened()]
