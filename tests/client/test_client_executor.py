"""The executor by the rules of ``concurrent.futures``, through a whole agent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest
from agent_process import AgentProcess

from meshpeer.client import Client, Executor, Options, RemoteError, Unpicklable
from meshpeer.core.errors import LocalFault

LONG_S = 60.0


def test_calls_that_are_submitted_together_are_one_job(mesh: Client) -> None:
    before = len(mesh.jobs())
    with Executor(mesh, linger_s=0.5) as executor:
        assert list(executor.map(abs, range(-20, 0), timeout=LONG_S)) == list(range(20, 0, -1))
        assert executor.submit(divmod, 7, 2).result(LONG_S) == (3, 1)
    jobs = mesh.jobs()[: len(mesh.jobs()) - before]
    assert sorted(one.tasks.total for one in jobs) == [1, 20]


def test_calls_of_several_functions_share_a_job(mesh: Client) -> None:
    with Executor(mesh, linger_s=0.5) as executor:
        made = [executor.submit(one, -3) for one in (abs, str, lambda n: n * 2)]  # type: ignore[arg-type]
        done, open_ = futures.wait(made, timeout=LONG_S)
        assert not open_
        assert {one.result() for one in done} == {3, "-3", -6}


def test_chunks_keep_the_order_and_start_fewer_processes(mesh: Client) -> None:
    with Executor(mesh) as executor:
        found = list(executor.map(lambda a, b: (a * b, os.getpid()), range(10), range(1, 11), chunksize=4))
    assert [one for one, _ in found] == [n * (n + 1) for n in range(10)]
    assert len({pid for _, pid in found}) == 3


def test_an_exception_is_the_futures_with_the_original_as_its_cause(mesh: Client) -> None:
    with Executor(mesh) as executor:
        failed, fine = executor.submit(int, "x"), executor.submit(int, "7")
        assert fine.result(LONG_S) == 7
        error = failed.exception(LONG_S)
    assert isinstance(error, RemoteError)
    assert isinstance(error.__cause__, ValueError)
    with pytest.raises(RemoteError, match="invalid literal"):
        failed.result()


def test_what_can_not_be_sent_is_refused_at_submit(mesh: Client) -> None:
    with Executor(mesh) as executor:
        with pytest.raises(Unpicklable, match=r"argument 1 \(a lock\)"):
            executor.submit(print, threading.Lock())
        with pytest.raises(LocalFault, match="16 MiB are allowed"):
            executor.submit(len, bytes(20_000_000))
        assert executor.submit(len, bytes(6_000_000)).result(LONG_S) == 6_000_000


def test_nothing_is_taken_after_shutdown_and_what_was_taken_ends(mesh: Client) -> None:
    executor = Executor(mesh)
    future = executor.submit(abs, -2)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -2)
    executor.shutdown()
    assert future.done()
    assert future.result() == 2


def test_a_cancelled_call_is_over_at_once_and_its_job_with_the_last_of_them(mesh: Client) -> None:
    with Executor(mesh.using(Options(name="slow")), linger_s=0.3) as executor:
        made = [executor.submit(time.sleep, 60) for _ in range(3)]
        wait_for(lambda: any(one.name == "slow" for one in mesh.jobs()))
        assert [one.cancel() for one in made] == [True] * 3
        done, _ = futures.wait(made, timeout=LONG_S)
        assert len(done) == 3
        with pytest.raises(futures.CancelledError):
            made[0].result()
        wait_for(lambda: mesh.job("slow").status().state == "cancelled")


def test_a_call_that_is_cancelled_before_it_goes_out_never_does(mesh: Client) -> None:
    before = len(mesh.jobs())
    with Executor(mesh, linger_s=0.5) as executor:
        assert executor.submit(abs, 1).cancel()
    assert len(mesh.jobs()) == before


def test_shutdown_can_cancel_all_that_is_open(mesh: Client) -> None:
    executor = Executor(mesh.using(Options(name="many")))
    first = executor.submit(abs, -1)
    assert first.result(LONG_S) == 1
    made = [executor.submit(time.sleep, 60) for _ in range(5)]
    executor.shutdown(cancel_futures=True)
    assert all(one.cancelled() for one in made)
    assert not first.cancelled()


def test_a_job_that_is_cancelled_by_somebody_else_cancels_its_futures(mesh: Client) -> None:
    with Executor(mesh.using(Options(name="taken"))) as executor:
        future = executor.submit(time.sleep, 60)
        wait_for(lambda: any(one.name == "taken" for one in mesh.jobs()))
        mesh.job("taken").cancel()
        with pytest.raises(futures.CancelledError):
            future.result(LONG_S)


def test_a_map_that_takes_too_long_raises_and_cancels_what_is_left(mesh: Client) -> None:
    with Executor(mesh.using(Options(name="late"))) as executor:
        with pytest.raises(futures.TimeoutError):
            list(executor.map(time.sleep, [60, 60], timeout=0.5))
        wait_for(lambda: mesh.job("late").status().state == "cancelled")


def test_an_agent_that_is_gone_fails_the_futures_of_its_jobs(mesh: Client, tmp_path: Path) -> None:
    with Executor(Client(tmp_path)) as executor:
        error = executor.submit(abs, 1).exception(LONG_S)
    assert "no agent is running here" in str(error)


def test_futures_can_be_awaited_in_asyncio(mesh: Client) -> None:
    async def main(executor: Executor) -> list[int]:
        made = [asyncio.wrap_future(executor.submit(abs, -n)) for n in range(3)]
        return list(await asyncio.gather(*made))

    with Executor(mesh) as executor:
        assert asyncio.run(main(executor)) == [0, 1, 2]


def test_threads_of_an_executor_that_is_left_alone_do_not_keep_its_program(agent: AgentProcess) -> None:
    program = (
        "from meshpeer.client import Executor, connect\n"
        f"executor = Executor(connect({str(agent.run_dir)!r}))\n"
        "print(executor.submit(abs, -3).result(60))\n"
        "import sys; print('trio' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=100, check=True)
    assert ended.stdout == b"3\nFalse\n"


def wait_for(condition: object, within_s: float = 30.0) -> None:
    assert callable(condition)
    ends_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
