"""Dials members back that asked for it: knocks at each endpoint, sees whose key answers, hangs up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.dialbacks import DialBack, DialledBack, Outcome, Try
from meshpeer.runtime.ports import DialFault

KNOCK_S_MAX = 5.0
"""An endpoint that has not answered by then does not; the asker waits a little longer."""


class Knocker(Protocol):
    async def knock(self, address: str) -> NodeId:
        """Shakes hands with whoever answers at ``host:port``, and hangs up; returns whose key was proved.

        Raises ``DialFault``."""
        ...


async def dial_back(knocker: Knocker, wanted: DialBack, post: Callable[[object], None]) -> None:
    """Tries all endpoints at once and posts what came of it, however it went."""
    outcomes = dict.fromkeys(wanted.endpoints, Outcome.SILENT)

    async def knock(endpoint: str) -> None:
        with trio.move_on_after(KNOCK_S_MAX):
            try:
                who = await knocker.knock(endpoint)
            except DialFault as fault:
                if fault.refused or fault.foreign:
                    outcomes[endpoint] = Outcome.STRANGER if fault.foreign else Outcome.REFUSED
            else:
                outcomes[endpoint] = Outcome.REACHED if who == wanted.asker else Outcome.STRANGER

    async with trio.open_nursery() as nursery:
        for endpoint in outcomes:
            nursery.start_soon(knock, endpoint)
    tries = tuple(Try(endpoint=one, outcome=outcome.value) for one, outcome in outcomes.items())
    post(DialledBack(asker=wanted.asker, number=wanted.number, tries=tries))
