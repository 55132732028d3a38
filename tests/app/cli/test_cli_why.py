"""What ``why`` asks, prints and refuses."""

from __future__ import annotations

import msgspec
import pytest
from cli_calls import Call
from fake_control_api import FakeApi, make_why

from meshpeer.core.errors import LocalFault
from meshpeer.runtime.control import WhyRule


def test_the_answer_comes_first_then_why_what_was_tried_and_what_to_do(agent: FakeApi, call: Call) -> None:
    ran = call("why", "beta")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[0].startswith("alpha does not reach beta: ")
    titles = [line for line in lines if line and not line.startswith(" ")][1:]
    assert titles == ["Why", "The tunnel to beta: no handshake yet", "What to do"]
    assert max(map(len, lines)) <= 80
    first, second = (line for line in lines if ":51820" in line)
    assert first.startswith("  192.0.2.2:51820      on a network of this machine  given up ")
    assert first.endswith(" ago")
    assert second == "  [2001:db8::2]:51820  public, it says               untried"


@pytest.mark.parametrize(
    ("carried", "says"),
    [
        (9_020, "  MTU 8960: its path carries packets of 9020 bytes"),
        (None, "  MTU 8960: its path answers no probes"),
    ],
)
def test_a_tunnel_is_shown_with_its_mtu_and_what_its_path_carries(
    agent: FakeApi, call: Call, carried: int | None, says: str
) -> None:
    (tunnel,) = make_why().tunnels
    wide = msgspec.structs.replace(tunnel, mtu=8_960, underlay_bytes=carried)
    agent.explained = make_why(tunnels=(wide,))
    assert says in call("why", "beta").out.splitlines()


def test_two_names_are_from_and_to_and_one_is_to(agent: FakeApi, call: Call) -> None:
    call("why", "beta")
    call("why", "gamma", "beta")
    assert agent.asked == [("why", "", "beta"), ("why", "gamma", "beta")]


def test_three_names_are_wrong_usage_and_none_too(agent: FakeApi, call: Call) -> None:
    assert call("why", "a", "b", "c").two_lines == (
        "3 members were named",
        "name one, or two: meshpeer why [A] B",
    )
    assert call("why").code == 2
    assert agent.asked == []


def test_the_document_has_its_keys(agent: FakeApi, call: Call) -> None:
    found = call("why", "beta", "--json").json()
    assert isinstance(found, dict)
    assert set(found) >= {"from", "to", "verdict", "path", "rule", "candidates", "unknown", "todo"}
    assert set(found["candidates"][0]) >= {"endpoint", "source", "state", "since"}
    assert call("why", "beta", "--quiet").out == "none\n"


def test_a_name_that_no_member_has_is_wrong_usage(agent: FakeApi, call: Call) -> None:
    agent.fault = LocalFault("there is no member 'bta'", "did you mean 'beta'?")
    ran = call("why", "bta")
    assert (ran.code, ran.two_lines[1]) == (2, "did you mean 'beta'?")


def test_what_others_named_never_reaches_the_terminal_raw(agent: FakeApi, call: Call) -> None:
    rule = WhyRule(code="x", text="a\x1b[2Jb")
    agent.explained = make_why(answer="n\x1b]0;t\x07", rule=(rule,), unknown=("\u202ex",))
    out = call("why", "beta").out
    assert not {letter for letter in out if not letter.isprintable()} - {"\n"}
