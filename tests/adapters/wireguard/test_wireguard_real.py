"""What only a real interface shows. Runs in a network namespace of its own, see ``conftest.py``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from meshpeer.adapters.wireguard import (
    UNIT_VARIABLE,
    CommandWireGuard,
    open_wireguard,
    request_file,
    unit_script,
)
from meshpeer.adapters.wireguard.userspace import UAPI_FOLDER
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.diff import describe_drift, diff_device
from meshpeer.core.wgconf.model import (
    AddAddress,
    AddRoute,
    DesiredDevice,
    DesiredPeer,
    ObservedDevice,
    RemoveAddress,
    RemoveRoute,
    SetPeer,
)
from meshpeer.core.wgconf.render import render_wg_quick

KIND = os.environ["MESHPEER_TEST_WIREGUARD"]
NAME = "wgt1"
OWN, ALPHA, BETA = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2, 3))

userspace = pytest.mark.skipif(KIND != "userspace", reason="a kernel interface has no process")


@pytest.fixture
async def wireguard() -> AsyncIterator[CommandWireGuard]:
    backend = await opened()
    yield backend
    await backend.remove()


async def test_an_interface_that_somebody_else_made_is_never_touched() -> None:
    run("ip", "tuntap", "add", "dev", NAME, "mode", "tun")
    try:
        backend = CommandWireGuard(KIND, NAME, ("wireguard-go",), owner="tests")
        with pytest.raises(EnvironmentFault) as refused:
            await backend.observe()
        assert refused.value.what == f"interface {NAME} exists and was made by something other than meshpeer"
        assert refused.value.hint.startswith(f"remove it (ip link delete {NAME}), or choose another name")
        with pytest.raises(EnvironmentFault):
            await backend.apply(diff_device(None, desired(), now_unix_s=0))
        await backend.remove()
        assert NAME in run("ip", "link", "show", "dev", NAME)
    finally:
        run("ip", "link", "delete", "dev", NAME)


async def test_the_interface_of_another_mesh_is_not_ours(wireguard: CommandWireGuard) -> None:
    await settle(wireguard, desired())
    with pytest.raises(EnvironmentFault, match="made by another mesh of meshpeer"):
        await (await opened(owner="others")).observe()


@pytest.mark.parametrize("seed", range(3))
async def test_the_kernel_adds_and_removes_addresses_by_the_rules_of_the_model(
    wireguard: CommandWireGuard, seed: int
) -> None:
    await settle(wireguard, dataclasses.replace(desired(), addresses=()))
    dice = random.Random(seed)
    pool = ["10.10.0.1/24", "10.10.0.1/20", "10.10.0.9/24", "10.10.0.9/20", "10.30.0.1/24"]
    pool += ["fd00::1/64", "fd00::1/48", "fd00::9/64"]
    routes = ["10.20.0.0/16", "fd00:2::/64"]
    for _ in range(60):
        address, prefix = dice.choice(pool), dice.choice(routes)
        step = dice.choice(
            [
                *(2 * [AddAddress(address=address), RemoveAddress(address=address)]),
                *(AddRoute(prefix=prefix), RemoveRoute(prefix=prefix)),
            ]
        )
        held = await wireguard.observe()
        try:
            after = device_after(held, (step,))
        except EnvironmentFault:
            after = held
            with pytest.raises(EnvironmentFault):
                await wireguard.apply((step,))
        else:
            await wireguard.apply((step,))
        observed = await wireguard.observe()
        assert after is not None
        assert observed is not None
        assert set(observed.addresses) == set(after.addresses), (held, step)
        assert observed.routes == after.routes, (held, step)


async def test_the_next_agent_adopts_what_the_last_one_left(wireguard: CommandWireGuard) -> None:
    held = await settle(wireguard, desired(peer(ALPHA, "10.10.0.2/32")))
    adopted = await opened("auto")
    assert adopted.backend == KIND
    assert await adopted.observe() == held
    await adopted.remove()
    assert await wireguard.observe() is None


async def test_what_a_hand_changed_is_described_and_repaired(wireguard: CommandWireGuard) -> None:
    wanted = desired(peer(ALPHA, "10.10.0.2/32"), peer(BETA, "10.10.0.3/32"))
    await settle(wireguard, wanted)
    key = run("wg", "show", NAME, "peers").split()[0]
    run("wg", "set", NAME, "peer", key, "remove")
    run("ip", "link", "set", "dev", NAME, "mtu", "1300")
    held = await wireguard.observe()
    names = {ALPHA.public: "alpha", BETA.public: "beta"}
    words = describe_drift(held, wanted, names)
    assert words[1:] == ["the MTU was 1300"]
    assert words[0] in ("peer alpha was removed by hand", "peer beta was removed by hand")
    await settle(wireguard, wanted)
    run("ip", "link", "delete", "dev", NAME)
    await gone(wireguard)
    await settle(wireguard, wanted)


async def test_an_interface_that_was_down_comes_back_whole(wireguard: CommandWireGuard) -> None:
    wanted = desired(peer(ALPHA, "10.10.0.2/32"), routes=("10.20.0.0/16",))
    await settle(wireguard, wanted)
    run("ip", "link", "set", "dev", NAME, "down")
    assert describe_drift(await wireguard.observe(), wanted, {})[-1] == f"interface {NAME} was down"
    await settle(wireguard, wanted)


async def test_a_private_key_is_in_no_command_line(wireguard: CommandWireGuard, tmp_path: Path) -> None:
    log = tmp_path / "argv"
    for tool in ("wg", "ip"):
        real = run("sh", "-c", f"command -v {tool}").strip()
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "$0 $*" >>{log}\nexec {real} "$@"\n')
        (tmp_path / tool).chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{path}"
    try:
        await settle(wireguard, desired(peer(ALPHA, "10.10.0.2/32")))
    finally:
        os.environ["PATH"] = path
    lines = log.read_text()
    assert "private-key /dev/stdin" in lines
    assert run("wg", "show", NAME, "private-key").strip() not in lines


async def test_a_step_that_fails_is_named(wireguard: CommandWireGuard) -> None:
    await settle(wireguard, desired())
    with pytest.raises(EnvironmentFault) as failed:
        await wireguard.apply((AddAddress(address="10.66.0.1/24"), RemoveRoute(prefix="10.20.0.0/16")))
    assert (
        failed.value.what
        == "`ip route delete 10.20.0.0/16 dev wgt1` failed: RTNETLINK answers: No such process"
    )


async def test_an_endpoint_that_does_not_resolve_hinders_no_other(wireguard: CommandWireGuard) -> None:
    await settle(wireguard, desired(peer(ALPHA, "10.10.0.2/32"), peer(BETA, "10.10.0.3/32")))
    await wireguard.apply(
        (
            SetPeer(public_key=ALPHA.public, endpoint="no-such-host.invalid:51820", keepalive_s=25),
            SetPeer(public_key=BETA.public, endpoint="localhost:51820"),
        )
    )
    held = await wireguard.observe()
    assert held is not None
    peers = {one.public_key: one for one in held.peers}
    assert (peers[ALPHA.public].endpoint, peers[ALPHA.public].keepalive_s) == (None, 25)
    assert peers[BETA.public].endpoint in ("127.0.0.1:51820", "[::1]:51820")


async def test_without_ipv6_the_mesh_runs_on_ipv4_and_says_so() -> None:
    run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    backend = await opened()
    try:
        held = await settle(
            backend, desired(peer(ALPHA, "10.10.0.2/32", "fd00::2/128"), routes=("fd00:2::/64",))
        )
        assert held.addresses == ("10.10.0.1/24",)
        assert list(backend.notes) == [f"IPv6 is disabled on this machine: {NAME} carries IPv4 only"]
    finally:
        await backend.remove()
        run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
    assert list(backend.notes) == []


async def test_wg_quick_takes_the_exported_file(tmp_path: Path) -> None:
    wanted = desired(
        peer(ALPHA, "10.10.0.2/32", "fd00::2/128", endpoint="192.0.2.2:51820"), peer(BETA, "10.10.0.3/32")
    )
    file = tmp_path / f"{NAME}.conf"
    file.touch(mode=0o600)
    file.write_text(render_wg_quick(wanted, {ALPHA.public: "alpha"}))
    stripped = run("wg-quick", "strip", str(file))
    assert "Address" not in stripped
    backend = await opened()
    try:
        await settle(backend, desired())
        (tmp_path / "stripped").write_text(stripped)
        run("wg", "setconf", NAME, str(tmp_path / "stripped"))
        held = await backend.observe()
        assert diff_device(held, wanted, now_unix_s=0) == ()
    finally:
        await backend.remove()


@userspace
async def test_the_process_outlives_whoever_started_it() -> None:
    backend = await opened()
    await settle(backend, desired())
    pid = process_of(NAME)
    parent, session = run("ps", "-o", "ppid=,sid=", "-p", str(pid)).split()
    assert int(parent) != os.getpid()
    assert int(session) != os.getsid(0)
    await backend.remove()
    await ended(pid)
    assert list(UAPI_FOLDER.glob(f"{NAME}.*")) == []


@userspace
async def test_a_process_that_was_killed_is_started_again(wireguard: CommandWireGuard) -> None:
    wanted = desired(peer(ALPHA, "10.10.0.2/32"))
    await settle(wireguard, wanted)
    before = process_of(NAME)
    os.kill(before, signal.SIGKILL)
    await gone(wireguard)
    await settle(wireguard, wanted)
    assert process_of(NAME) != before


@userspace
async def test_a_process_whose_interface_was_deleted_does_not_hinder_the_next(
    wireguard: CommandWireGuard,
) -> None:
    wanted = desired(peer(ALPHA, "10.10.0.2/32"))
    for _ in range(5):
        await settle(wireguard, wanted)
        os.kill(process_of(NAME), signal.SIGSTOP)
        run("ip", "link", "delete", "dev", NAME)
        os.kill(process_of(NAME), signal.SIGCONT)
        assert await wireguard.observe() is None


@userspace
async def test_a_socket_that_somebody_took_away_is_repaired(wireguard: CommandWireGuard) -> None:
    wanted = desired(peer(ALPHA, "10.10.0.2/32"))
    await settle(wireguard, wanted)
    (UAPI_FOLDER / f"{NAME}.sock").unlink()
    assert await wireguard.observe() is None
    await settle(wireguard, wanted)


@userspace
async def test_a_socket_of_another_program_is_left_alone() -> None:
    UAPI_FOLDER.mkdir(exist_ok=True)
    path = UAPI_FOLDER / f"{NAME}.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(EnvironmentFault, match="another program serves"):
            await (await opened()).apply(diff_device(None, desired(), now_unix_s=0))
        assert path.exists()
    path.unlink()


@userspace
async def test_a_program_that_can_not_start_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho 'no TUN for you' >&2\nexit 1\n")
    program.chmod(0o755)
    backend = CommandWireGuard("userspace", NAME, (str(program), "{interface}"), owner="tests")
    with pytest.raises(EnvironmentFault, match=f"did not bring up {NAME}: no TUN for you"):
        await backend.apply(diff_device(None, desired(), now_unix_s=0))
    assert list(UAPI_FOLDER.glob(f"{NAME}.*")) == []


@userspace
async def test_a_unit_that_watches_for_requests_runs_the_program_in_the_agents_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(UNIT_VARIABLE, "tests.service")
    backend = await opened()
    async with unit("wireguard-go", "--foreground", NAME) as started:
        wanted = desired(peer(ALPHA, "10.10.0.2/32"))
        await settle(backend, wanted)
        assert [process_of(NAME)] == [one.pid for one in started]
        assert not request_file(NAME).exists()
        # It is the same process for the next agent, with a unit or without one.
        monkeypatch.delenv(UNIT_VARIABLE)
        assert diff_device(await (await opened("auto")).observe(), wanted, now_unix_s=0) == ()
        # A process that died is asked for again.
        os.kill(process_of(NAME), signal.SIGKILL)
        await gone(backend)
        await settle(backend, wanted)
        assert len(started) == 2
        await backend.remove()
        await ended(started[-1].pid)
    assert list(UAPI_FOLDER.glob(f"{NAME}.*")) == []
    assert len(started) == 2, "what is taken down is not asked for again"


@userspace
async def test_a_unit_whose_program_fails_is_quoted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNIT_VARIABLE, "tests.service")
    backend = await opened()
    # The program takes these words like its own, so that it is known for ours until it ends.
    async with unit("sh", "-c", "echo 'no TUN for you' >&2; exit 1", "--foreground", NAME):
        with pytest.raises(EnvironmentFault, match=f"did not bring up {NAME}: no TUN for you") as failed:
            await backend.apply(diff_device(None, desired(), now_unix_s=0))
    assert failed.value.hint == "journalctl -u tests.service -n 20"
    assert list(UAPI_FOLDER.glob(f"{NAME}.*")) == []


@contextlib.asynccontextmanager
async def unit(*program: str) -> AsyncIterator[list[trio.Process]]:
    """Does what the two units do: wherever the request is and the program is not, it starts the script."""
    started: list[trio.Process] = []

    async def watch() -> None:
        while True:
            if request_file(NAME).exists() and not (started and started[-1].poll() is None):
                command = ["/bin/sh", "-c", unit_script(NAME), *program]
                started.append(await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL))
            for one in started:
                one.poll()  # collects it, as systemd does
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield started
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        for one in started:
            await one.wait()


async def opened(kind: str = KIND, owner: str = "tests") -> CommandWireGuard:
    backend = await open_wireguard(kind, NAME, owner=owner)
    assert isinstance(backend, CommandWireGuard)
    return backend


async def settle(wireguard: CommandWireGuard, wanted: DesiredDevice) -> ObservedDevice:
    await wireguard.apply(diff_device(await wireguard.observe(), wanted, now_unix_s=0))
    held = await wireguard.observe()
    assert held is not None
    assert diff_device(held, wanted, now_unix_s=0) == ()
    return held


async def gone(wireguard: CommandWireGuard) -> None:
    with trio.fail_after(10):
        while await wireguard.observe() is not None:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def ended(pid: int) -> None:
    """Waits until the machine's init has collected the process."""
    with trio.fail_after(10), contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            await trio.sleep(0.01)


def process_of(interface: str) -> int:
    return int((UAPI_FOLDER / f"{interface}.meshpeer.pid").read_text())


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def peer(key: WireGuardPrivateKey, *allowed_ips: str, endpoint: str | None = None) -> DesiredPeer:
    return DesiredPeer(public_key=key.public, allowed_ips=tuple(allowed_ips), endpoint=endpoint)


def desired(*peers: DesiredPeer, routes: tuple[str, ...] = ()) -> DesiredDevice:
    return DesiredDevice(
        interface=NAME,
        private_key=OWN.secret,
        public_key=OWN.public,
        listen_port=51834,
        mtu=1420,
        addresses=("10.10.0.1/24", "fd00::1/64"),
        peers=tuple(sorted(peers, key=lambda one: one.public_key)),
        routes=routes,
    )
