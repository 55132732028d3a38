"""Engines of others on a mesh of three, as docs/programs.md says: Dask, Ray and MPI finish a computation on
all nodes, and what they exchange goes through the tunnels.

The engines are the real ones, of versions that are pinned (``engines.txt``), in an environment of their own.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import meshkit
import pytest
from meshlab import Lab, Node
from sshkit import SSHD, sshd

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("alpha", "bravo", "charlie")
MIB = 1 << 20
PINNED = Path(__file__).parent / "engines.txt"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HOME": "/root",
    "RAY_TMPDIR": "/run/lab",
    "RAY_AUTH_MODE": "disabled",
}
"""Each machine has a /run of its own: in one /tmp nodes of Ray would take each other's files for theirs."""

ON_DASK = """
import socket, sys
from distributed import Client
with Client(sys.argv[1]) as client:
    client.wait_for_workers(3, timeout=60)
    print(sorted(set(client.run(socket.gethostname).values())))
    squares = client.map(lambda number: number * number, range(1000))
    print(client.submit(sum, squares).result())
    print(sum(map(len, client.run(lambda: bytes(1 << 20)).values())) >> 20)
"""
ON_RAY = """
import socket, time, ray
ray.init(address="auto", log_to_driver=False)

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def square(number):
    time.sleep(0.05)
    return socket.gethostname(), number * number, bytes(1 << 16)

found = ray.get([square.remote(number) for number in range(60)])
print(sorted({host for host, _, _ in found}))
print(sum(one for _, one, _ in found))
print(sum(len(data) for _, _, data in found) >> 20)
"""
ON_MPI = """
import socket
from mpi4py import MPI
world = MPI.COMM_WORLD
hosts = world.gather(socket.gethostname())
total = world.reduce(sum(one * one for one in range(world.rank, 1000, world.size)))
got = world.alltoall([bytes(1 << 20)] * world.size)
if world.rank == 0:
    print(sorted(hosts))
    print(total)
    print(sum(map(len, got)) >> 20)
"""


def test_dask_computes_on_all_of_them(lab: Lab, engines: Path, addresses: dict[str, str]) -> None:
    scheduler, before = f"tcp://{addresses['alpha']}:8786", moved(lab)
    with ExitStack() as stack:
        # As `dask scheduler` and `dask worker` do, which look for their parts among all that is installed.
        served = [str(engines / "python"), "-m", "distributed.cli.dask_scheduler"]
        run_aside(stack, lab.node("alpha"), [*served, "--host", addresses["alpha"], "--no-dashboard"])
        for name in NAMES:
            worker = [str(engines / "python"), "-m", "distributed.cli.dask_worker", scheduler]
            worker += ["--host", addresses[name], "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
            run_aside(stack, lab.node(name), worker)
        done = lab.node("alpha").run([str(engines / "python"), "-c", ON_DASK, scheduler], timeout=180)
    assert done.stdout.splitlines() == [str([*NAMES]), str(sum(one * one for one in range(1000))), "3"]
    assert_moved(lab, before, MIB)


def test_ray_computes_on_all_of_them(lab: Lab, engines: Path, addresses: dict[str, str]) -> None:
    before = moved(lab)
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    for name in NAMES:
        mine = [str(engines / "ray"), "start", f"--node-ip-address={addresses[name]}", *common]
        mine += ["--head", "--port=6379"] if name == "alpha" else [f"--address={addresses['alpha']}:6379"]
        lab.node(name).run(["mkdir", "-p", "/run/lab"])
        # A head that does not answer yet refuses: whoever types this types it again.
        start = functools.partial(lab.node(name).run, mine, check=False, timeout=180, env=QUIET)
        meshkit.until(lambda: start().returncode == 0, f"Ray starts on {name}", 180)  # noqa: B023
    done = lab.node("alpha").run([str(engines / "python"), "-c", ON_RAY], timeout=180, env=QUIET)
    assert done.stdout.splitlines() == [str([*NAMES]), str(sum(one * one for one in range(60))), "3"]
    # Which node runs how many of them is Ray's to say.
    assert_moved(lab, before, MIB // 8)


@pytest.mark.skipif(SSHD is None, reason="no sshd: bootstrap does not bring one to a machine with systemd")
def test_mpi_computes_on_all_of_them(lab: Lab, engines: Path, addresses: dict[str, str]) -> None:
    alpha, before = lab.node("alpha"), moved(lab)
    alpha.put_file("/run/lab-hosts", meshkit.meshpeer(alpha, "hosts", "--format", "mpi"))
    shell = "ssh -i /run/lab/id -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/run/lab/known"
    with ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(sshd(lab.node(name), alpha))
        argv = [str(engines / "mpirun"), "--allow-run-as-root", "--hostfile", "/run/lab-hosts", "-np", "3"]
        for setting, value in (
            ("btl_tcp_if_include", "wg0"),
            ("oob_tcp_if_include", "wg0"),
            ("plm_ssh_agent", shell),
        ):
            argv += ["--mca", setting, value]
        done = alpha.run([*argv, str(engines / "python"), "-c", ON_MPI], timeout=180)
    assert done.stdout.splitlines() == [str([*NAMES]), str(sum(one * one for one in range(1000))), "3"]
    assert_moved(lab, before, MIB)


def moved(lab: Lab) -> dict[str, int]:
    """Returns what each node has sent and received through its tunnels, in bytes."""
    return {
        name: sum(one.rx_bytes + one.tx_bytes for one in meshkit.peers(lab.node(name)).values())
        for name in NAMES
    }


def assert_moved(lab: Lab, before: dict[str, int], least: int) -> None:
    """What was exchanged went through each node's tunnels; its agent reads their counters now and then."""
    meshkit.until(
        lambda: all(after >= before[name] + least for name, after in moved(lab).items()),
        f"{least} bytes more through the tunnels of each than {before}",
    )
    print({name: f"{(after - before[name]) / MIB:.1f} MiB" for name, after in moved(lab).items()})


def run_aside(stack: ExitStack, node: Node, argv: Sequence[str]) -> None:
    """Runs a program until the block ends."""
    process = stack.enter_context(
        node.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=QUIET)
    )
    stack.callback(process.kill)


@pytest.fixture(scope="module")
def engines() -> Iterator[Path]:
    """Installs the engines; returns the folder with their programs."""
    with meshkit.open_folder() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
        programs = folder / "venv" / "bin"
        pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wanted = ["--no-input", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", PINNED]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        yield programs


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.lan(*NAMES)) as lab:
        meshkit.found_mesh(lab, *NAMES)
        meshkit.wait_until_whole(lab, *NAMES)
        yield lab


@pytest.fixture(scope="module")
def addresses(lab: Lab) -> dict[str, str]:
    return {name: meshkit.status(lab.node(name)).node.ipv4 for name in NAMES}
