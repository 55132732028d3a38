"""Steps become the fewest command lines, and no line holds a secret."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from meshpeer.adapters.wireguard import DryRunWireGuard, NoWireGuard, open_wireguard
from meshpeer.adapters.wireguard.calls import WORDS_MAX, Create, IpBatch, WgSet, plan_calls
from meshpeer.adapters.wireguard.tools import ToolFailed, require_tool, run_tool
from meshpeer.core.errors import EnvironmentFault, LocalFault
from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import WireGuardKey, wireguard_key_text
from meshpeer.core.wgconf.diff import diff_device
from meshpeer.core.wgconf.model import (
    AddAddress,
    DesiredDevice,
    DesiredPeer,
    RemoveAddress,
    RemovePeer,
    RemoveRoute,
    SetListenPort,
    SetPeer,
    SetPrivateKey,
)

OWN, ALPHA, BETA = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
SECRET = base64.b64encode(OWN.secret)


def test_a_new_interface_takes_three_calls() -> None:
    calls = plan_calls("wg0", diff_device(None, device(), now_unix_s=0))
    assert calls == [
        Create(),
        WgSet(
            words=(
                *("private-key", "/dev/stdin", "listen-port", "51820"),
                *("peer", wireguard_key_text(ALPHA.public), "endpoint", "192.0.2.2:51820"),
                *("persistent-keepalive", "25", "allowed-ips", "10.10.0.2/32,fd00::2/128"),
            ),
            stdin=SECRET + b"\n",
        ),
        IpBatch(
            lines=(
                "link set dev wg0 mtu 1420",
                "address replace 10.10.0.1/24 dev wg0",
                "address replace fd00::1/64 dev wg0 nodad",
                "link set dev wg0 up",
                "route replace 10.20.0.0/16 dev wg0 metric 4096",
            )
        ),
    ]
    assert SECRET.decode() not in repr(calls)


def test_peers_change_in_one_call_in_order() -> None:
    steps = (
        RemovePeer(public_key=ALPHA.public),
        SetPeer(public_key=BETA.public, allowed_ips=()),
        SetPeer(public_key=BETA.public, keepalive_s=0),
    )
    alpha, beta = wireguard_key_text(ALPHA.public), wireguard_key_text(BETA.public)
    words = (
        "peer",
        alpha,
        "remove",
        "peer",
        beta,
        "allowed-ips",
        "",
        "peer",
        beta,
        "persistent-keepalive",
        "0",
    )
    assert plan_calls("wg0", steps) == [WgSet(words=words)]


def test_steps_keep_their_order_across_tools() -> None:
    steps = (
        RemoveAddress(address="10.10.0.9/24"),
        SetListenPort(port=1),
        AddAddress(address="10.10.0.1/24"),
        RemoveRoute(prefix="10.20.0.0/16"),
    )
    assert plan_calls("wg0", steps) == [
        IpBatch(lines=("address delete 10.10.0.9/24 dev wg0",)),
        WgSet(words=("listen-port", "1")),
        IpBatch(lines=("address replace 10.10.0.1/24 dev wg0", "route delete 10.20.0.0/16 dev wg0")),
    ]


def test_a_command_line_has_a_limit() -> None:
    steps = [
        SetPeer(public_key=WireGuardKey(number.to_bytes(32, "big")), allowed_ips=("10.10.0.2/32",))
        for number in range(5_000)
    ]
    calls = plan_calls("wg0", steps)
    assert [len(call.words) for call in calls if isinstance(call, WgSet)] == [4_000] * 5
    assert max(len(call.words) for call in calls if isinstance(call, WgSet)) <= WORDS_MAX + 8


def test_nothing_to_do_is_no_call() -> None:
    assert plan_calls("wg0", ()) == []


async def test_a_dry_run_shows_setconf_form_and_no_secret() -> None:
    shown: list[str] = []
    await DryRunWireGuard("wg0", shown.append).apply(diff_device(None, device(), now_unix_s=0))
    assert "".join(shown) == (
        "ip link add dev wg0 type wireguard\n"
        "wg setconf wg0:\n"
        "[Interface]\n"
        "ListenPort = 51820\n"
        "\n"
        "[Peer]\n"
        f"PublicKey = {wireguard_key_text(ALPHA.public)}\n"
        "AllowedIPs = 10.10.0.2/32, fd00::2/128\n"
        "Endpoint = 192.0.2.2:51820\n"
        "PersistentKeepalive = 25\n"
        "ip link set dev wg0 mtu 1420\n"
        "ip address replace 10.10.0.1/24 dev wg0\n"
        "ip address replace fd00::1/64 dev wg0 nodad\n"
        "ip link set dev wg0 up\n"
        "ip route replace 10.20.0.0/16 dev wg0 metric 4096\n"
    )


async def test_backend_none_has_no_interface() -> None:
    backend = await open_wireguard("none", "wg0")
    assert isinstance(backend, NoWireGuard)
    await backend.apply(diff_device(None, device(), now_unix_s=0))
    assert await backend.observe() is None
    await backend.remove()


async def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LocalFault) as refused:
        await open_wireguard("kernal", "wg0")
    assert refused.value.hint == "choose one of auto, kernel, userspace, none"


@pytest.mark.parametrize(
    ("tool", "apt", "dnf"),
    [
        ("wg", "wireguard-tools", "wireguard-tools"),
        ("ip", "iproute2", "iproute"),
        ("wireguard-go", "wireguard-go", "wireguard-go"),
    ],
)
def test_a_missing_tool_names_its_packages(
    tool: str, apt: str, dnf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("meshpeer.adapters.wireguard.tools.SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=f"`{tool}` is not installed") as missing:
        require_tool(tool)
    assert missing.value.exit_code == 5
    assert f"apt install {apt} " in missing.value.hint
    assert f"dnf install {dnf} " in missing.value.hint


async def test_a_tool_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tool(tmp_path, "wg", "echo 'Unable to modify interface: Operation not permitted' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ToolFailed) as failed:
        await run_tool("wg", "set", "wg0", "peer", "K", "remove", "peer", "L", "remove")
    assert failed.value.what == (
        "`wg set wg0 peer K remove peer ...` failed: Unable to modify interface: Operation not permitted"
    )


async def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tool(tmp_path, "wg", "exec sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("meshpeer.adapters.wireguard.tools.TOOL_S_MAX", 0.05)
    with pytest.raises(ToolFailed, match="did not end"):
        await run_tool("wg", "show")


async def test_a_tool_is_given_its_input_and_plain_speech(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool(tmp_path, "wg", 'read -r word; echo "$word $LC_ALL $WG_COLOR_MODE"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert await run_tool("wg", stdin=b"key\n") == "key C never\n"


def make_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def device() -> DesiredDevice:
    return DesiredDevice(
        interface="wg0",
        private_key=OWN.secret,
        public_key=OWN.public,
        listen_port=51820,
        mtu=1420,
        addresses=("10.10.0.1/24", "fd00::1/64"),
        peers=(
            DesiredPeer(
                public_key=ALPHA.public,
                allowed_ips=("10.10.0.2/32", "fd00::2/128"),
                endpoint="192.0.2.2:51820",
                keepalive_s=25,
            ),
        ),
        routes=("10.20.0.0/16",),
    )


def test_a_private_key_passes_by_stdin_only() -> None:
    (call,) = plan_calls("wg0", (SetPrivateKey(private_key=OWN.secret),))
    assert call == WgSet(words=("private-key", "/dev/stdin"), stdin=SECRET + b"\n")
