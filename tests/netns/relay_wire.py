"""Listens to, and speaks on, a wire: what a relay's machine carries, and what a stranger sends.

``relay_wire.py capture FILE``: appends the payload of every UDP packet that passes, until it is ended, one a
line: source port, destination port, hex. ``relay_wire.py send HOST PORT...``: sends each line of hex from its
input to each port, waits a moment, and prints how many packets came back.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

ETH_P_ALL = 3
UDP = 17


def capture(path: str) -> None:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with open(path, "w", buffering=1) as file:
        print("ready", flush=True)
        while True:
            frame = wire.recv(65_536)
            start = udp_at(frame)
            if start:
                source, target = struct.unpack_from("!HH", frame, start)
                print(source, target, frame[start + 8 :].hex(), file=file)


def udp_at(frame: bytes) -> int:
    """Returns where the UDP header starts; 0 for what is none."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == 0x0800 and frame[23] == UDP:
        return 14 + (frame[14] & 15) * 4
    return 54 if kind == 0x86DD and frame[20] == UDP else 0


def send(host: str, ports: list[int]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(1.0)
        for line in sys.stdin:
            for port in ports:
                stranger.sendto(bytes.fromhex(line), (host, port))
        came = 0
        with contextlib.suppress(TimeoutError):
            while stranger.recv(65_536) is not None:
                came += 1
        print(came)


if __name__ == "__main__":
    if sys.argv[1] == "capture":
        capture(sys.argv[2])
    else:
        send(sys.argv[2], [int(port) for port in sys.argv[3:]])
