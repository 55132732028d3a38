"""Runs ``wg`` and ``ip``, and reads what they print. Keys travel by stdin, never in argv."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import PIPE

import msgspec
import trio

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.model import ObservedPeer

PACKAGES = {
    "wg": ("wireguard-tools", "wireguard-tools"),
    "ip": ("iproute2", "iproute"),
    "wireguard-go": ("wireguard-go", "wireguard-go"),
}
"""Program -> (Debian package, Fedora package)."""


def require_tool(name: str) -> str:
    """Returns the program's path; raises ``EnvironmentFault`` naming the packages where it is missing."""
    path = shutil.which(name) or next((one for one in (f"/usr/sbin/{name}", f"/sbin/{name}", f"/usr/bin/{name}") if os.path.exists(one)), None)
    if path is None:
        apt, dnf = PACKAGES.get(name, (name, name))
        raise EnvironmentFault(
            f"`{name}` is not installed", f"apt install {apt} (Debian, Ubuntu) or dnf install {dnf} (Fedora); or join with --backend none"
        )
    return path


async def run_tool(name: str, *arguments: str, stdin: bytes = b"") -> str:
    """Runs a program to its end and returns its stdout; raises ``EnvironmentFault`` with what it said on stderr."""
    done = await trio.run_process([require_tool(name), *arguments], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ToolFailed(f"`{name} {' '.join(arguments)}` failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


class ToolFailed(EnvironmentFault):
    """A program that we ran said no."""


class AddressInfo(msgspec.Struct, frozen=True):
    family: str
    local: str
    prefixlen: int
    scope: str = ""


class LinkInfo(msgspec.Struct, frozen=True):
    """One entry of ``ip -json address``."""

    ifname: str
    mtu: int = 0
    flags: tuple[str, ...] = ()
    ifalias: str = ""
    addr_info: tuple[AddressInfo, ...] = ()


def parse_addresses(text: str) -> tuple[LinkInfo, ...]:
    """Reads ``ip -json address``; raises ``EnvironmentFault`` for anything else."""
    try:
        return tuple(msgspec.json.decode(text or "[]", type=list[LinkInfo]))
    except msgspec.DecodeError as error:
        raise EnvironmentFault(f"`ip -json address` printed what can't be read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What ``wg show IF dump`` says, the private key left out."""

    public_key: WireGuardKey
    listen_port: int
    peers: tuple[ObservedPeer, ...]


def parse_dump(text: str) -> Dump:
    """Reads ``wg show IF dump`` (wg(8)); raises ``EnvironmentFault`` for anything else."""
    lines = text.strip("\n").split("\n")
    try:
        _, public, port, _ = lines[0].split("\t")
        return Dump(
            public_key=_key(public),
            listen_port=int(port),
            peers=tuple(sorted((_peer(line.split("\t")) for line in lines[1:]), key=lambda peer: peer.public_key)),
        )
    except (ValueError, IndexError, binascii.Error) as error:
        raise EnvironmentFault("`wg show dump` printed what can't be read", "is `wg` the one of wireguard-tools?") from error


def _peer(fields: Sequence[str]) -> ObservedPeer:
    key, _, endpoint, allowed, handshake, received, sent, keepalive = fields
    return ObservedPeer(
        public_key=_key(key),
        allowed_ips=tuple(sorted(str(ipaddress.ip_network(one)) for one in allowed.split(",") if one not in ("(none)", ""))),
        endpoint=None if endpoint == "(none)" else endpoint,
        keepalive_s=0 if keepalive == "off" else int(keepalive),
        latest_handshake_unix_s=int(handshake),
        rx_bytes=int(received),
        tx_bytes=int(sent),
    )


def _key(text: str) -> WireGuardKey:
    return WireGuardKey(bytes(32) if text == "(none)" else base64.b64decode(text, validate=True))
