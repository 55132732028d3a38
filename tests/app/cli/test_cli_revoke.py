"""What `meshpeer revoke` asks, prints and refuses, and how a status tells of it."""

from __future__ import annotations

import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_revocation

from meshpeer.runtime.control import RevocationRequest


def test_revoke_asks_for_what_the_options_say_and_tells_who_went(agent: FakeApi, call: Call) -> None:
    ran = call("revoke", "delta", "--reason", "laptop stolen", "--void-revocations")
    wanted = RevocationRequest(target="delta", reason="laptop stolen", revocations="void")
    assert ("revoke", wanted) in agent.asked
    lines = ran.out.splitlines()
    assert lines[0].startswith("delta was revoked by alpha at ")
    assert lines[0].endswith(": laptop stolen")
    assert lines[1] == "out of the mesh: delta"


def test_a_time_is_utc_where_it_does_not_say(agent: FakeApi, call: Call) -> None:
    call("revoke", "0f1e2d3c4b5a6978", "--since", "2026-11-01", "--root")
    assert (
        "revoke",
        RevocationRequest(target="0f1e2d3c4b5a6978", since=1_793_491_200.0, root=True),
    ) in agent.asked


def test_without_a_name_it_lists_who_was_revoked(agent: FakeApi, call: Call) -> None:
    assert call("revoke").out == "Nobody was revoked.\n"
    agent.shut_out = [
        make_revocation(),
        make_revocation(
            what="invite", id="0f1e2d3c4b5a6978", name="", reason="", since="2026-11-01T00:00:00.000000Z"
        ),
    ]
    first, second = call("revoke").out.splitlines()
    assert first.startswith("delta was revoked by alpha at ")
    assert second.startswith("invite 0f1e2d3c4b5a6978 was revoked by alpha at ")
    assert second.endswith("UTC, from 2026-11-01 00:00:00 UTC on")
    assert len(call("revoke", "--json").json()) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--with-members", "--keep-members"), "exclude each other"),
        (("--keep-revocations", "--void-revocations"), "exclude each other"),
        (("--since", "yesterday"), "is not a time"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_asked(
    agent: FakeApi, call: Call, arguments: tuple[str, ...], says: str
) -> None:
    ran = call("revoke", "delta", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert agent.asked == []
