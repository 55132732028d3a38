"""What a router loses when it starts anew: the table of its translations, and often its outside address."""

from __future__ import annotations

import random
import sys

from meshlab.errors import LabError
from meshlab.node import Node
from meshlab.spec import RouterSpec

_FLUSH = """
import socket, struct
# nfnetlink: delete of the connection tracking table (subsystem 1, message 2) without a tuple empties it.
length, kind, request, ack = 20, 1 << 8 | 2, 1, 4
news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
news.send(struct.pack("=IHHIIBBH", length, kind, request | ack, 1, 0, 0, 0, 0))
(error,) = struct.unpack_from("=i", news.recv(4096), 16)
raise SystemExit(f"error {error}" if error else 0)
"""


def forget_translations(router: Node) -> None:
    """Empties a router's table of translations: what comes from outside is new to it. Raises
    CommandFailed."""
    router.run([sys.executable, "-I", "-c", _FLUSH])


def move_outside(router: Node, spec: RouterSpec, address: str) -> None:
    """Gives a router another outside IPv4 address (``ADDRESS/LENGTH``), as a provider does at a new dial-in.

    Its translations are lost with the old one. Raises LabError for a router without an outside."""
    if spec.outside is None:
        raise LabError(f"{router.name} has no outside", "name a router that has one")
    default = router.run(["ip", "-4", "route", "show", "default"]).stdout.split()
    router.run(["ip", "-4", "address", "flush", "dev", spec.outside])
    # Neighbours that still know the old address by its hardware address must not get through by it.
    router.run(["ip", "link", "set", "dev", spec.outside, "address", f"02:{random.randbytes(5).hex(':')}"])
    router.run(["ip", "address", "add", address, "brd", "+", "dev", spec.outside])
    if default:
        router.run(["ip", "route", "replace", *default[: default.index("dev")]])
    forget_translations(router)
