"""The client for trio: it answers as the plain one does, and blocks nobody."""

from __future__ import annotations

import time

import pytest
import trio
from agent_process import AgentProcess

from meshpeer.client import Options, RemoteError, Unpicklable, aconnect


async def test_trio_gets_what_plain_code_gets(agent: AgentProcess) -> None:
    async with aconnect(agent.run_dir) as mesh:
        assert (await mesh.status()).node.name == "alone"
        job = await mesh.map(lambda n: n + 1, [1, 2])
        assert await job.gather() == [2, 3]
        assert sorted([one async for one in job.results()]) == [("call[0]", 2), ("call[1]", 3)]
        assert [one.state async for one in job.watch()][-1] == "succeeded"
        assert (await (await mesh.job(job.id, unpickle=True)).gather()) == [2, 3]
        named = await mesh.submit_job({"name": "n", "tasks": {"t": {"python": "os:getpid"}}})
        assert isinstance(await named.result(), int)
        with pytest.raises(RemoteError, match="invalid literal"):
            await (await mesh.using(Options(result="json")).submit(int, "x")).result()
        with pytest.raises(Unpicklable):
            await mesh.submit(print, trio.lowlevel.current_task())


async def test_who_waits_can_be_cancelled_and_others_go_on_meanwhile(agent: AgentProcess) -> None:
    async with aconnect(agent.run_dir) as mesh:
        job = await mesh.submit(time.sleep, 60)
        beats = 0
        with trio.move_on_after(1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.result)
                while True:
                    await trio.sleep(0.02)
                    beats += 1
        assert scope.cancelled_caught
        assert beats > 5
        assert (await job.cancel()).state == "cancelled"
        assert (await job.wait()).state == "cancelled"
