#!/usr/bin/env python3
"""What each datagram to this machine costs more while raw sockets hear beside WireGuard.

Datagrams of a full packet's size go over loopback to a port that a socket owns; their sender does all of the
kernel's work on the way in. Rounds alternate between without and with the raw sockets of the adapter, whose
filters drop them all. Needs root.

    .venv/bin/python scripts/bench/tunnelport.py [--rounds 6] [--count 100000]
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import time

import trio

from meshpeer.adapters.tunnelport import RawTunnelPort

DATA = b"\4\0\0\0" + bytes(1_448)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=100_000)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {"without": [], "with": []}
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        owner.bind(("127.0.0.1", 0))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.connect(owner.getsockname())
        for _ in range(asked.rounds):
            found["without"].append(each_us(sender, asked.count))
            async with trio.open_nursery() as nursery:
                port = owner.getsockname()[1]
                await nursery.start(RawTunnelPort().serve, port, 0, lambda event: None)
                found["with"].append(each_us(sender, asked.count))
                nursery.cancel_scope.cancel()
    more = [with_it - without for with_it, without in zip(found["with"], found["without"], strict=True)]
    for name, values in (*found.items(), ("more", more)):
        low, high = min(values), max(values)
        print(f"{name:8} median {statistics.median(values):.3f} us a datagram ({low:.3f} to {high:.3f})")


def each_us(sender: socket.socket, count: int) -> float:
    begun_s = time.thread_time()
    for _ in range(count):
        sender.send(DATA)
    return (time.thread_time() - begun_s) / count * 1e6


if __name__ == "__main__":
    trio.run(main)
