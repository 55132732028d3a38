"""The agent's side of the relay: starts the helper, gives it orders, and keeps the fast path in step.

The helper lives as long as ``run``. Its end takes all pairs along, which ``run`` says by raising: what was
lent is lost, and the ends ask again. A pair that is to freeze leaves the fast path at once, so that it is
the helper that lets nothing cross from the very instant on.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from meshpeer.adapters.relay import orders
from meshpeer.adapters.relay.fastpath import REFRESH_S, Carried, FastPath, Ports
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import NO_BINDS, Binds
from meshpeer.core.paths.relay_crossing import Way
from meshpeer.core.wire.unreadable import UNREADABLE
from meshpeer.runtime.ports import RelayedPair

START_S_MAX = 20.0
ANSWER_S_MAX = 5.0
"""A helper that takes longer to obey hangs."""
SETTLE_S = 0.05
_NOTHING: Carried = ((0, 0), (0, 0))


@dataclass(slots=True)
class _Asked:
    """An order that was not answered yet."""

    answered: trio.Event
    answer: orders.Done | None = None


class ProcessRelay:
    """Implements ``Relaying`` with a process, and with nftables where it may. ``fast``: None for the process
    alone."""

    def __init__(self, *, rate: float, total: float, fast: FastPath | None) -> None:
        self._rates = (rate, total)
        self._fast = fast
        self._connection: socket.socket | None = None
        self._asked: dict[int, _Asked] = {}
        self._last_number = 0
        self._settled: dict[Ports, tuple[Way, Way]] = {}
        self._changed = trio.Event()
        self._in_step = trio.Lock()
        self.fault: EnvironmentFault | None = None
        """Why the fast path can't be had, although it should; pairs cross by the helper then."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Relays until cancelled; raises ``EnvironmentFault`` where the helper ends or does not start."""
        await self._keep_out()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await _start(theirs, self._rates)
            try:
                await _greet(ours)
                self._connection = ours
                async with trio.open_nursery() as nursery:
                    if self._fast is not None:
                        nursery.start_soon(self._keep_in_step, self._fast)
                    task_status.started()
                    await self._listen(ours)
                    nursery.cancel_scope.cancel()
            finally:
                self._connection = None
                self._settled.clear()
                for asked in self._asked.values():
                    asked.answered.set()
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()
                    await self._keep_out()
        raise EnvironmentFault("the relay's helper ended", "what it had lent is lost; it is started again")

    async def open(
        self, ports: Ports, keys: tuple[WireGuardKey, WireGuardKey], binds: Binds = NO_BINDS
    ) -> None:
        await self._order(orders.Open(number=self._number(), ports=ports, keys=keys, binds=binds))

    async def rekey(self, ports: Ports, keys: tuple[Sequence[WireGuardKey], Sequence[WireGuardKey]]) -> None:
        first, second = (tuple(bytes(key) for key in own) for own in keys)
        await self._order(orders.Rekey(number=self._number(), ports=ports, keys=(first, second)))

    async def close(self, ports: Ports) -> None:
        await self._order(orders.Close(number=self._number(), ports=ports))
        await self._leave(ports)
        if self._fast is not None:
            self._fast.forget(ports)

    async def freeze(self, ports: Ports, at_s: float) -> None:
        await self._order(orders.Freeze(number=self._number(), ports=ports, at_s=at_s))
        await self._leave(ports)

    async def wake(self, ports: Ports) -> None:
        await self._order(orders.Wake(number=self._number(), ports=ports))

    async def look(self) -> Sequence[RelayedPair]:
        counted = (await self._order(orders.Look(number=self._number()))).counted
        carried = await self._fast.count() if self._fast is not None else {}
        fast = self._fast.pairs if self._fast is not None else frozenset()
        return [_shown(one, carried.get(one.ports, _NOTHING), one.ports in fast) for one in counted]

    # --- the helper -----------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    async def _order(self, order: orders.Order) -> orders.Done:
        """Gives an order and waits until it is obeyed; raises ``EnvironmentFault``."""
        connection = self._connection
        if connection is None:
            raise EnvironmentFault("the relay's helper does not run")
        asked = self._asked[order.number] = _Asked(trio.Event())
        try:
            with trio.fail_after(ANSWER_S_MAX):
                await _send(connection, orders.ENCODER.encode(order))
                await asked.answered.wait()
        except trio.TooSlowError as error:
            raise EnvironmentFault(f"the relay's helper did not obey within {ANSWER_S_MAX:.0f} s") from error
        except OSError as error:
            raise EnvironmentFault("the relay's helper is gone") from error
        finally:
            del self._asked[order.number]
        if asked.answer is None:
            raise EnvironmentFault("the relay's helper is gone")
        if asked.answer.error:
            raise EnvironmentFault(asked.answer.error, "see what holds it: ss -lunp")
        return asked.answer

    async def _listen(self, connection: socket.socket) -> None:
        """Takes the helper's words until it hangs up."""
        while (word := await _receive(connection)) is not None:
            match word:
                case orders.Done(number=number):
                    asked = self._asked.get(number)
                    if asked is not None:
                        asked.answer = word
                        asked.answered.set()
                case orders.Settled(ports=ports, ways=ways):
                    if ways is None:
                        self._settled.pop(ports, None)
                    else:
                        self._settled[ports] = ways
                    self._changed.set()
                case orders.Ready():
                    pass

    # --- the fast path --------------------------------------------------------------------------------------

    async def _leave(self, ports: Ports) -> None:
        """Takes a pair off the fast path, and returns when it is off."""
        self._settled.pop(ports, None)
        if self._fast is not None:
            # Even where it is not there: it may be about to come.
            await self._bring_in_step(self._fast)

    async def _keep_in_step(self, fast: FastPath) -> None:
        anew = False
        while True:
            self._changed = trio.Event()
            await self._bring_in_step(fast, anew=anew)
            with trio.move_on_after(REFRESH_S if self._settled else float("inf")) as pause:
                await self._changed.wait()
            anew = pause.cancelled_caught
            if all(self._settled.get(one.ports) == one.ways for one in fast.carried):
                # Nothing goes where it should not, and ends settle together: one table for all of them.
                await trio.sleep(SETTLE_S)

    async def _bring_in_step(self, fast: FastPath, *, anew: bool = False) -> None:
        async with self._in_step:
            try:
                await fast.set_pairs(dict(self._settled), anew=anew)
                self.fault = None
            except EnvironmentFault as fault:
                self.fault = fault

    async def _keep_out(self) -> None:
        """Removes the table of the fast path, this run's or one that was left behind."""
        if self._fast is not None:
            async with self._in_step:
                try:
                    await self._fast.clear()
                except EnvironmentFault as fault:
                    self.fault = fault


async def _start(connection: socket.socket, rates: tuple[float, float]) -> trio.Process:
    program = ["-I", "-X", "utf8", "-m", "meshpeer.adapters.relay.helper"]
    numbers = (connection.fileno(), *rates)
    try:
        return await trio.lowlevel.open_process(
            [sys.executable, *program, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(connection.fileno(),),
            start_new_session=True,
            env={},
            cwd="/",
        )
    except OSError as error:
        raise EnvironmentFault(f"the relay's helper did not start: {error.strerror}") from error


async def _greet(connection: socket.socket) -> None:
    word = None
    with trio.move_on_after(START_S_MAX):
        word = await _receive(connection)
    if not isinstance(word, orders.Ready):
        raise EnvironmentFault(
            "the relay's helper did not start", f"see whether `{sys.executable} -I -c pass` works"
        )


async def _receive(connection: socket.socket) -> orders.Word | None:
    """Returns the helper's next word; None where it is gone, or talks nonsense."""
    while True:
        await trio.lowlevel.wait_readable(connection)
        try:
            data = connection.recv(orders.MESSAGE_BYTES_MAX)
        except BlockingIOError:
            continue
        except OSError:
            return None
        try:
            return orders.WORDS.decode(data) if data else None
        except UNREADABLE:
            return None


async def _send(connection: socket.socket, data: bytes) -> None:
    while True:
        try:
            connection.send(data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection)
        else:
            return


def _shown(one: orders.Counted, carried: Carried, fast: bool) -> RelayedPair:
    (packets, more_packets), (size, more_size) = carried
    return RelayedPair(
        ports=one.ports,
        packets=(one.packets[0] + packets, one.packets[1] + more_packets),
        bytes=(one.bytes[0] + size, one.bytes[1] + more_size),
        drops=one.drops,
        ways=one.ways,
        frozen=one.frozen,
        fast=fast,
    )
