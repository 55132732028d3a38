#!/usr/bin/env python3
"""Runs the rows of ``jobs.py`` on another scheduler, with two workers of one slot each; ``jobs.py --beside``
calls it with the Python that has them installed.

    PYTHON scripts/bench/jobs_engines.py hyperqueue|dask|ray ROUNDS

Prints one JSON object: seconds from submission to the end of the last task, by row. What HyperQueue runs is
`true` that writes down when it ran (its client looks for the end once a second, and can't time anything); the
others run `true` by ``subprocess.run``.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jobs_shapes import SHAPES, Shape

LATENCY_ROUNDS = 5
TICK = """
#include <time.h>
#include <fcntl.h>
#include <unistd.h>
#include <stdint.h>
int main(int c, char **v) {
  struct timespec t; clock_gettime(CLOCK_REALTIME, &t);
  uint64_t n = (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
  int f = open(v[1], O_WRONLY | O_APPEND | O_CREAT, 0600);
  return f < 0 || write(f, &n, 8) != 8;
}
"""


def main() -> None:
    engine, rounds = sys.argv[1], int(sys.argv[2])
    run = {"hyperqueue": hyperqueue, "dask": dask, "ray": ray}[engine]
    print(json.dumps(run(rounds)))


def measured(rounds: int, once: Callable[[Shape], float]) -> dict[str, list[float]]:
    once([[] for _ in range(50)])
    return {
        name: [once(shape) for _ in range(rounds * (LATENCY_ROUNDS if len(shape) == 1 else 1))]
        for name, shape in SHAPES.items()
    }


def hyperqueue(rounds: int) -> dict[str, list[float]]:
    import hyperqueue.client
    from hyperqueue import Job
    from hyperqueue.cluster import LocalCluster, WorkerConfig

    hyperqueue.client.create_progress_callback = lambda: lambda jobs: None
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path("tick.c").write_text(TICK)
        subprocess.run(["cc", "-O2", "-o", "tick", "tick.c"], check=True)
        cluster = LocalCluster()
        for _ in range(2):
            cluster.start_worker(WorkerConfig(cores=1))
        time.sleep(1.5)
        client = cluster.client()

        def once(shape: Shape) -> float:
            job = Job(max_fails=None)
            tasks: list[object] = []
            for needs in shape:
                called = [f"{name}/tick", f"{name}/times"]
                tasks.append(job.program(called, deps=[tasks[n] for n in needs], stdout=None, stderr=None))
            begun = time.time()
            sent = client.submit(job)
            client.wait_for_jobs([sent])
            data = Path("times").read_bytes()
            Path("times").unlink()
            assert len(data) == 8 * len(shape)
            client.forget(sent)
            return max(struct.unpack(f"{len(shape)}Q", data)) / 1e9 - begun

        figures = measured(rounds, once)
        cluster.stop()
    return figures


def dask(rounds: int) -> dict[str, list[float]]:
    from dask import delayed
    from distributed import Client, LocalCluster, wait

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    )
    with cluster, Client(cluster) as client:
        task = delayed(call, pure=False)

        def once(shape: Shape) -> float:
            tasks: list[object] = []
            for needs in shape:
                tasks.append(task(*[tasks[n] for n in needs]))
            begun = time.perf_counter()
            futures = client.compute(tasks)
            wait(futures)
            client.gather(futures)
            return time.perf_counter() - begun

        return measured(rounds, once)


def ray(rounds: int) -> dict[str, list[float]]:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import ray as engine

    engine.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        logging_level="ERROR",
    )
    task = engine.remote(call)

    def once(shape: Shape) -> float:
        begun = time.perf_counter()
        tasks: list[object] = []
        for needs in shape:
            tasks.append(task.remote(*[tasks[n] for n in needs]))
        engine.get(tasks)
        return time.perf_counter() - begun

    figures = measured(rounds, once)
    engine.shutdown()
    return figures


def call(*_: object) -> None:
    subprocess.run(["true"], check=True)


if __name__ == "__main__":
    main()
