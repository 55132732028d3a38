"""Watches a job from trio: its states as they change, and its results as they come."""

import time

import trio

from meshpeer.client import AsyncJob, Options, aconnect


def render(frame: int) -> str:
    time.sleep(0.1)
    print(f"frame {frame} is drawn")
    return "#" * frame


async def show_states(job: AsyncJob[str]) -> None:
    last = ""
    async for now in job.watch():
        if now.state != last:
            last = now.state
            print("the job is", last, flush=True)


async def main() -> None:
    async with aconnect(options=Options(name="frames", retries=1, timeout_s=60)) as mesh:
        job = await mesh.map(render, range(1, 5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_states, job)
            frames = {task: frame async for task, frame in job.results()}
        print(*(frames[task] for task in sorted(frames)), sep="\n")
        print((await job.logs("call[2]")).strip())


if __name__ == "__main__":
    trio.run(main)
