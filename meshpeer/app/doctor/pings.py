"""Sends a ping through tunnels: a handshake may be three minutes old, and says nothing of now."""

from __future__ import annotations

from collections.abc import Iterable

import trio

PINGED_MAX = 16
"""Tunnels that are tried at once; the others go by their handshakes."""
_PING = ("ping", "-n", "-c", "2", "-i", "0.3", "-W", "1")


async def ping_through(addresses: Iterable[str]) -> dict[str, bool]:
    """Returns for each overlay address whether it answers; those that could not be tried are left out."""
    answers: dict[str, bool] = {}

    async def ping(address: str) -> None:
        try:
            done = await trio.run_process(
                [*_PING, address], capture_stdout=True, capture_stderr=True, check=False
            )
        except OSError:
            return
        # Exit code 2 is ping's for what it could not even try.
        if done.returncode in (0, 1):
            answers[address] = done.returncode == 0

    async with trio.open_nursery() as nursery:
        for address in list(addresses)[:PINGED_MAX]:
            nursery.start_soon(ping, address)
    return answers
