"""Tells a service manager how this process is: sd_notify(3), by hand.

A manager that wants to know puts a datagram socket's name into NOTIFY_SOCKET, and how long it waits for a
sign of life into WATCHDOG_USEC. Without the first nothing is ever sent. Nothing here fails: a manager that
does not listen is no reason for a node to end.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import trio

SEND_S_MAX = 1.0
"""A manager reads at once; one that does not must not hold the agent up."""


class Notifier:
    """One process's line to its manager."""

    def __init__(self, address: str = "", *, watchdog_s: float = 0.0) -> None:
        """``address`` is a path, or ``@`` and an abstract name (unix(7)); empty: nobody wants to know.

        ``watchdog_s``: within this long the manager wants a sign of life; 0 for never.
        """
        known = address.startswith(("/", "@")) and len(address) > 1
        self._address = address.replace("@", "\0", 1) if known and address[0] == "@" else address * known
        self.watchdog_s = watchdog_s if known else 0.0

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Reads the variables and takes them out: what this process starts has nothing to say there."""
        address = environment.pop("NOTIFY_SOCKET", "")
        patience = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        ours = process in ("", str(os.getpid()))
        return cls(address, watchdog_s=int(patience) / 1e6 if ours and _is_number(patience) else 0.0)

    @property
    def listens(self) -> bool:
        return bool(self._address)

    async def tell(self, *facts: str) -> bool:
        """Sends assignments such as ``READY=1``, all in one message; says whether it went out."""
        if not self._address:
            return False
        message = "\n".join(" ".join(fact.split()) for fact in facts).encode()
        with trio.move_on_after(SEND_S_MAX), trio.socket.socket(trio.socket.AF_UNIX, _DATAGRAM) as line:
            try:
                await line.sendto(message, self._address)
            except OSError:
                return False
            return True
        return False


_DATAGRAM = trio.socket.SOCK_DGRAM


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
