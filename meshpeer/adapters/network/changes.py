"""Waits for the kernel to say that links, addresses or routes changed.

A netlink socket is read for its being readable, and for nothing else: what there is now is observed anew.
Looking every few seconds instead costs two processes each time, a third of what an idle agent took."""

from __future__ import annotations

import errno
import socket

import trio

LOOK_S = 5.0
"""How often to look where the kernel tells nothing."""
LOOK_ANYHOW_S = 60.0
"""And where it does: a message may be lost."""
SETTLE_S = 0.2
"""Changes come in bursts: an address, its route, its duplicate check."""

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE
"""rtnetlink(7); RTMGRP_* in linux/rtnetlink.h."""
_MESSAGE_BYTES_MAX = 65_536


class NetworkChanges:
    """One socket of the kernel's news; open it before the first look, and nothing is missed."""

    def __init__(self) -> None:
        self._socket = _open()

    async def wait(self) -> None:
        """Returns when something may have changed, or after a while all the same."""
        if self._socket is None:
            await trio.sleep(LOOK_S)
            return
        with trio.move_on_after(LOOK_ANYHOW_S):
            await trio.lowlevel.wait_readable(self._socket)
        await trio.sleep(SETTLE_S)
        self._drain(self._socket)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    @staticmethod
    def _drain(news: socket.socket) -> None:
        while True:
            try:
                news.recv(_MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # Some were lost; whoever waited looks anyhow.
                    return


def _open() -> socket.socket | None:
    """Returns None where there is no netlink, or none for us."""
    try:
        news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except (AttributeError, OSError):
        return None
    try:
        news.bind((0, _GROUPS))
    except OSError:
        news.close()
        return None
    return news
