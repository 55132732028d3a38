"""Moves outlive the request that began them, and say once to each who asks next why they failed."""

from __future__ import annotations

import hashlib

import pytest
import trio
import trio.testing

from meshpeer.app.moves import MOVES_MAX, Moves
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import Digest
from meshpeer.runtime.ports import BlobRef


async def test_a_move_goes_on_when_whoever_began_it_waits_no_longer() -> None:
    ended: list[str] = []

    async def move() -> None:
        await go.wait()
        ended.append("moved")

    async with trio.open_nursery() as nursery:
        moves, go = Moves(nursery.start_soon), trio.Event()
        for _ in range(3):
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_soon, scope)
                await moves.have(ref(1), move)
        assert len(nursery.child_tasks) == 1, "it is one and the same"
        go.set()
        await moves.have(ref(1), move)
        assert ended == ["moved"]


async def test_who_asks_next_is_told_why_it_failed_and_who_asks_then_begins_anew() -> None:
    begun: list[int] = []

    async def fail() -> None:
        begun.append(1)
        await trio.lowlevel.checkpoint()
        raise EnvironmentFault("nobody gives it")

    async with trio.open_nursery() as nursery:
        moves = Moves(nursery.start_soon)
        with trio.CancelScope() as scope:
            scope.cancel()
            await moves.have(ref(1), fail)
        await trio.testing.wait_all_tasks_blocked()
        for count in (1, 2):
            with pytest.raises(EnvironmentFault, match="nobody gives it"):
                await moves.have(ref(1), fail)
            assert len(begun) == count


async def test_beyond_so_many_moves_nothing_is_begun() -> None:
    async with trio.open_nursery() as nursery:
        moves = Moves(nursery.start_soon)
        for number in range(MOVES_MAX + 5):
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_soon, scope)
                await moves.have(ref(number), trio.sleep_forever)
        assert len(nursery.child_tasks) == MOVES_MAX
        nursery.cancel_scope.cancel()


async def cancel_soon(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


def ref(number: int) -> BlobRef:
    return BlobRef(digest=Digest(hashlib.sha256(b"%d" % number).digest()), size=1)
