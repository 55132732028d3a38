"""What becomes of an endpoint that was knocked at on behalf of another."""

from __future__ import annotations

import trio
import trio.testing

from meshpeer.core.ids import NodeId
from meshpeer.core.membership.dialbacks import DialBack, DialledBack, Outcome, Try
from meshpeer.runtime.dialbacks import dial_back
from meshpeer.runtime.ports import DialFault

ASKER, OTHER = NodeId(b"a" * 32), NodeId(b"b" * 32)


class Doors:
    """Answers by address."""

    async def knock(self, address: str) -> NodeId:
        await trio.lowlevel.checkpoint()
        match address.partition(":")[0]:
            case "home":
                return ASKER
            case "elsewhere":
                return OTHER
            case "closed":
                raise DialFault("no", refused=True)
            case "web":
                raise DialFault("no member", foreign=True)
            case "filtered":
                raise DialFault("does not answer")
            case _:
                await trio.sleep_forever()
                raise AssertionError


async def test_each_endpoint_has_its_own_outcome_and_none_holds_up_the_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    posted: list[object] = []
    endpoints = tuple(f"{one}:1" for one in ("home", "elsewhere", "closed", "web", "filtered", "slow"))
    await dial_back(Doors(), DialBack(asker=ASKER, number=7, endpoints=endpoints), posted.append)
    outcomes = (
        Outcome.REACHED,
        Outcome.STRANGER,
        Outcome.REFUSED,
        Outcome.STRANGER,
        Outcome.SILENT,
        Outcome.SILENT,
    )
    tries = tuple(
        Try(endpoint=one, outcome=outcome.value) for one, outcome in zip(endpoints, outcomes, strict=True)
    )
    assert posted == [DialledBack(asker=ASKER, number=7, tries=tries)]
