"""A slot: a place for one attempt at a time, with its user, folders, control group and helper."""

from __future__ import annotations

import contextlib
from pathlib import Path

import trio

from meshpeer.adapters.executor.groups import NO_GROUP, SlotGroup
from meshpeer.adapters.executor.helper import PROCESSES_MAX
from meshpeer.adapters.executor.scratch import STREAMS, BadPlan, Scratch
from meshpeer.adapters.executor.spawning import NetworkKept, Rlimits, SpawnHelper
from meshpeer.adapters.executor.sweeping import Sweeper
from meshpeer.adapters.executor.usage import Usage
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.wire.limits import BLOB_BYTES_MAX


class Slot:
    """One slot. ``uid`` is its own user, or None for the agent's."""

    def __init__(self, root: Path, index: int, uid: int | None, group: SlotGroup = NO_GROUP) -> None:
        self.index = index
        self.uid = uid
        self.scratch = Scratch(root, index, uid)
        self.group = group
        self._sweeper = None if uid is None else Sweeper(uid)
        self._helper: SpawnHelper | None = None
        self._network = True

    def __lt__(self, other: Slot) -> bool:
        return self.index < other.index

    async def helper(self, *, network: bool = True) -> SpawnHelper:
        """Returns the running helper, or starts one; raises ``EnvironmentFault``, and ``BadPlan`` where it
        can't be without a network on this machine."""
        if self._helper is None or not self._helper.alive or self._network is not network:
            self._network = network
            await self.replace_helper()
        assert self._helper is not None
        return self._helper

    async def replace_helper(self) -> None:
        """Ends a helper that failed, and what it ran: with a uid of its own that is the new one's first
        act. What a task left in shared memory may fill the control group, and would end the new one, too."""
        lost, self._helper = self._helper, None
        if lost is not None:
            await lost.kill()
            if self.group.held:
                await trio.to_thread.run_sync(self._empty_group)
            if self._sweeper is not None:
                await self._sweeper.sweep()
        try:
            self._helper = await SpawnHelper.start(self.uid, self.group, network=self._network)
        except NetworkKept as kept:
            raise BadPlan(
                f"this node can't run tasks without a network: {kept} (under systemd: [jobs] namespaces, "
                "then `meshpeer service install` again)"
            ) from kept

    async def limit(self, memory_bytes: int, processes: int, file_bytes: int) -> Rlimits:
        """Bounds the next attempt by the control group, and returns by which rlimits, too; raises
        ``EnvironmentFault``."""
        if self.group.limits_differ(memory_bytes, processes):
            try:
                await trio.to_thread.run_sync(self.group.limit, memory_bytes, processes)
            except OSError as error:
                raise EnvironmentFault(
                    f"a task can't be bounded: {error.filename}: {error.strerror}", "restart the agent"
                ) from error
        by_user = self.uid is not None and processes < PROCESSES_MAX
        return Rlimits(
            address_space_bytes=0 if "memory" in self.group.held else memory_bytes,
            processes=processes + 1 if by_user and "pids" not in self.group.held else 0,
            file_bytes=min(file_bytes, BLOB_BYTES_MAX),
        )

    def usage(self, bytes_max: int, reserve_bytes: int) -> Usage:
        """Returns what watches how much of the disk the present attempt takes."""
        scratch = self.scratch
        streams = [scratch.descriptor(stream) for stream in STREAMS]
        return Usage(scratch.folder, (scratch.work, scratch.tmp), streams, bytes_max, reserve_bytes)

    async def clean(self) -> None:
        """Removes what an attempt left, in its folders and elsewhere."""
        await self.scratch.clean()
        if self._sweeper is not None:
            await self._sweeper.sweep()

    def _empty_group(self) -> None:
        with contextlib.suppress(OSError):  # what stays is seen when the next attempt is bounded
            self.group.kill()
            self.group.limit(0, PROCESSES_MAX)

    async def close(self) -> None:
        if self._helper is not None:
            await self._helper.close()
            self._helper = None
        if self._sweeper is not None:
            await self._sweeper.sweep()
        with contextlib.suppress(OSError):  # emptied again when it is next opened
            await self.scratch.remove()
