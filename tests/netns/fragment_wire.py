"""Listens to a machine's wires, and counts what was sent there in fragments.

``fragment_wire.py INTERFACE...``: says ``ready``, listens until its input ends, and prints one line of JSON:
UDP packets, fragments, and the longest packet (IP header included).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys

ETH_P_ALL, ETHERNET_BYTES = 3, 14
UDP, IPV6_FRAGMENT = 17, 44
MORE_OR_OFFSET = 0x3FFF


def main(names: list[str]) -> None:
    seen = {"udp": 0, "fragments": 0, "longest": 0}
    with contextlib.ExitStack() as stack:
        wires = []
        for name in names:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            wire.bind((name, ETH_P_ALL))
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
            wires.append(stack.enter_context(wire))
        print("ready", flush=True)
        while True:
            ready = select.select([*wires, sys.stdin], [], [])[0]
            for wire in wires:
                if wire in ready:
                    count(wire.recv(70_000)[ETHERNET_BYTES:], seen)
            if sys.stdin in ready and not sys.stdin.readline():
                break
    print(json.dumps(seen))


def count(packet: bytes, seen: dict[str, int]) -> None:
    if packet[:1] and packet[0] >> 4 == 4:
        (position,) = struct.unpack_from("!H", packet, 6)
        fragment, udp = bool(position & MORE_OR_OFFSET), packet[9] == UDP
    elif packet[:1] and packet[0] >> 4 == 6:
        fragment, udp = packet[6] == IPV6_FRAGMENT, packet[6] == UDP
    else:
        return
    seen["fragments"] += fragment
    seen["udp"] += udp
    seen["longest"] = max(seen["longest"], len(packet) if udp else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
