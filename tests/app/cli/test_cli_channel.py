"""What status says of channels: WireGuard, or links alone and since when, and what links go over."""

from __future__ import annotations

import msgspec
import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_status

from meshpeer.app.cli.channel import channel_rows
from meshpeer.runtime.control import Channel, LinkOnly, Status

AT = "2026-01-31T08:15:00.123456Z"
SAID = "2026-01-31 08:15:00 UTC"


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (Channel(tunnel=4), ["WireGuard"]),
        (
            Channel(tunnel=3, link=(LinkOnly(names=("bravo",), since=AT),)),
            ["WireGuard to 3 of 4", f"links only to bravo: no UDP answered since {SAID}"],
        ),
        (
            Channel(tunnel=0, link=(LinkOnly(names=("bravo", "delta"), since=AT),), over={"ssh": ("delta",)}),
            [f"links only: no UDP answered since {SAID}", "the link to delta goes by ssh"],
        ),
        (
            Channel(tunnel=0, link=(LinkOnly(names=("bravo",), since=AT, never=True),)),
            [f"links only: no UDP answered yet, asked since {SAID}"],
        ),
        (Channel(tunnel=0, link=(LinkOnly(names=("bravo",), since=""),)), ["links only: there is no tunnel"]),
        (
            Channel(tunnel=1, none=("echo",), unknown=("golf",), unknown_since=AT),
            [
                "WireGuard to 1 of 3",
                f"not known to golf: nothing went through the tunnel since {SAID}",
                "none to echo",
            ],
        ),
    ],
)
def test_status_says_which_channel_is_in_use(
    agent: FakeApi, call: Call, found: Channel, lines: list[str]
) -> None:
    agent.now = make_status(channel=found)
    ran = call("status")
    shown = ran.out.splitlines()
    first = next(number for number, line in enumerate(shown) if line.split()[:1] == ["channel"])
    assert [line.split(maxsplit=1)[1] for line in shown[first : first + 1]] == lines[:1]
    assert [line.strip() for line in shown[first + 1 : first + len(lines)]] == lines[1:]
    again = msgspec.json.decode(call("status", "--json").out, type=Status)
    assert again.channel == found


def test_alone_or_with_an_old_agent_there_is_nothing_to_say() -> None:
    assert channel_rows(None) == []
    assert channel_rows(Channel(tunnel=0)) == []
