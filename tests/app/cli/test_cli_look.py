"""What status, peers, plan, ping, export, version, invite, stop and leave print, and their documents."""

from __future__ import annotations

import msgspec
import pytest
from cli_calls import Call
from fake_control_api import INVITE, FakeApi, make_peer, make_status

from meshpeer import __version__
from meshpeer.core.errors import EnvironmentFault, LocalFault, MeshpeerError, PeerFault, Refused
from meshpeer.runtime.control import InviteRequest

GLOBALS_EACH_WAY = [
    ("--json", "status"),
    ("status", "--json"),
]


@pytest.mark.parametrize("arguments", GLOBALS_EACH_WAY)
def test_global_options_stand_before_and_after_a_command(
    agent: FakeApi, call: Call, arguments: tuple[str, ...]
) -> None:
    ran = call(*arguments)
    assert ran.code == 0
    assert isinstance(ran.json(), dict)


def test_global_options_stand_in_the_middle_of_a_group(agent: FakeApi, call: Call) -> None:
    for arguments in (("--json", "jobs", "list"), ("jobs", "--json", "list"), ("jobs", "list", "--json")):
        assert call(*arguments).json() == []


def test_the_folder_nearest_to_the_command_wins(agent: FakeApi, call: Call, home: object) -> None:
    assert call("--run-dir", f"{home}/nowhere", "status", "--run-dir", f"{home}/run").code == 0
    assert call("--run-dir", f"{home}/run", "status", "--run-dir", f"{home}/nowhere").code == 3


def test_status_has_the_keys_of_the_contract(agent: FakeApi, call: Call) -> None:
    found = call("status", "--json").json()
    assert isinstance(found, dict)
    assert set(found) >= {"mesh", "node", "members", "health", "warnings"}
    assert set(found["mesh"]) >= {"id", "name", "subnet", "topology", "topology_mode"}
    assert set(found["node"]) >= {
        "id", "name", "region", "roles", "ipv4", "ipv6", "public_key", "backend", "interface", "port", "mtu",
    }  # fmt: skip
    assert set(found["members"]) >= {"total", "alive", "suspect", "dead", "left"}
    assert found["warnings"] == []


def test_status_says_first_how_it_is(agent: FakeApi, call: Call) -> None:
    agent.now = make_status(health="degraded", warnings=("no member can be reached",))
    ran = call("status")
    lines = ran.out.splitlines()
    assert lines[0] == "alpha in the mesh home: degraded"
    assert "  members    2 alive of 3 (1 dead)" in lines
    assert "  addresses  10.10.0.1  fd00::1" in lines
    assert lines[-1] == "warning: no member can be reached"
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert ran.err == ""


def test_status_in_a_word(agent: FakeApi, call: Call) -> None:
    assert call("status", "--quiet").out == "ok\n"


def test_status_says_more_when_asked(agent: FakeApi, call: Call) -> None:
    assert "nnnn" not in call("status").out
    assert "nnnn" in call("status", "-v").out


def test_peers_have_the_keys_of_the_contract(agent: FakeApi, call: Call) -> None:
    found = call("peers", "--json").json()
    assert isinstance(found, list)
    assert set(found[0]) >= {
        "id", "name", "region", "roles", "ipv4", "ipv6", "state", "link", "path", "via", "endpoint",
        "last_handshake_s", "rtt_ms", "rx_bytes", "tx_bytes",
    }  # fmt: skip


def test_peers_is_a_table_with_aligned_columns(agent: FakeApi, call: Call) -> None:
    agent.members = [
        make_peer(),
        make_peer(name="名前-node", ipv4="", path="relay", via="beta", rtt_ms=None, last_handshake_s=None),
    ]
    head, first, second = call("peers").out.splitlines()
    assert head.split() == ["NAME", "ADDRESS", "STATE", "PATH", "RTT", "HANDSHAKE", "REGION", "ENDPOINT"]
    assert first.index("10.10.0.2") == head.index("ADDRESS")
    assert second.index("fd00::2") == head.index("ADDRESS") - 2, "two wide letters take four columns"
    assert "relay via beta" in second


def test_peers_says_why_a_member_is_not_alive(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(state="dead", because="no answer for 30 s")]
    assert call("peers").out.splitlines()[-1] == "beta is dead: no answer for 30 s"


def test_peers_of_a_lone_node_says_how_to_get_some(agent: FakeApi, call: Call) -> None:
    agent.members = []
    assert "meshpeer invite" in call("peers").out
    assert call("peers", "--json").json() == []
    assert call("peers", "--quiet").out == ""


def test_control_characters_of_others_never_reach_the_terminal(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(name="a\x1b[2Jb\u202ec\nd", state="dead", because="x\x07\ry")]
    agent.now = make_status(warnings=("w\x1b]0;t\x07",))
    for command in ("peers", "status"):
        out = call(command).out
        assert not {letter for letter in out if not letter.isprintable()} - {"\n"}
    assert "a\\x1b[2Jb\\u202ec\\nd" in call("peers").out


def test_plan_has_the_keys_of_the_contract(agent: FakeApi, call: Call) -> None:
    found = call("plan", "--json").json()
    assert isinstance(found, dict)
    assert set(found) >= {"mode", "hub", "hubs", "peers", "routes"}
    assert set(found["peers"][0]) >= {"name", "public_key", "endpoint", "allowed_ips", "keepalive_s"}


def test_plan_says_first_whether_there_is_anything_to_do(agent: FakeApi, call: Call) -> None:
    assert call("plan").out.startswith("The interface is as it should be.\n")
    agent.steps = ("add peer beta", "add route 10.10.0.0/24")
    assert call("plan").out.splitlines()[:3] == [
        "2 steps to apply:",
        "  add peer beta",
        "  add route 10.10.0.0/24",
    ]


def test_ping_counts_what_was_answered(agent: FakeApi, call: Call) -> None:
    ran = call("ping", "beta", "--count", "3")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "beta (10.10.0.2) over its tunnel: 2 of 3 answered",
        "  round trip 0.50 ms at best, 1.00 on average, 1.50 at worst",
    ]
    assert agent.asked == [("ping", "beta", 3)]


def test_a_ping_that_nobody_answers_fails(agent: FakeApi, call: Call) -> None:
    agent.rtt_ms = (None, None)
    ran = call("ping", "beta")
    assert (ran.code, ran.out) == (1, "")
    assert ran.two_lines[0] == "beta (10.10.0.2) does not answer over its tunnel"
    ran = call("ping", "beta", "--json")
    assert (ran.code, ran.err) == (1, "")
    assert ran.json() == {"node": "beta", "address": "10.10.0.2", "over": "tunnel", "rtt_ms": [None, None]}


def test_export_prints_the_configuration_alone(agent: FakeApi, call: Call) -> None:
    assert call("export", "wg-quick").out == "[Interface]\nPrivateKey = x\n"
    assert call("export", "wg-quick", "--json").json() == {"wg_quick": "[Interface]\nPrivateKey = x\n"}


def test_version_needs_no_agent(call: Call) -> None:
    for arguments in (("version", "--quiet"), ("--quiet", "version")):
        assert call(*arguments).out == f"{__version__}\n"
    assert call("--version").out.startswith(f"meshpeer {__version__} (Python ")
    assert call("version", "--json").json()["version"] == __version__  # type: ignore[index]


def test_peers_show_mtus_where_one_is_not_the_usual(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(name="bravo", mtu=1420), make_peer(name="gamma", mtu=0)]
    assert "MTU" not in call("peers").out
    agent.members = [make_peer(name="bravo", mtu=8960), make_peer(name="gamma", mtu=0)]
    titles, bravo, gamma = call("peers").out.splitlines()[:3]
    assert (titles.split()[-1], bravo.split()[-1], gamma.split()[-1]) == ("MTU", "8960", "-")


def test_status_says_that_some_members_have_another_mtu(agent: FakeApi, call: Call) -> None:
    assert "to some members less" not in call("status").out
    agent.now = make_status(node=msgspec.structs.replace(make_status().node, mtu_differs=True))
    assert "MTU 1420 (to some members less: `meshpeer peers`)" in call("status").out


def test_peers_name_the_lans_that_are_reached_through_a_member(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(name="bravo", routes=("192.168.5.0/24", "fd05::/64")), make_peer(name="gamma")]
    assert call("peers").out.splitlines()[-1] == "bravo leads to 192.168.5.0/24, fd05::/64"
    assert [one["routes"] for one in call("peers", "--json").json()] == [["192.168.5.0/24", "fd05::/64"], []]  # type: ignore[index]


def test_invite_prints_the_invite_on_stdout_and_the_rest_beside_it(agent: FakeApi, call: Call) -> None:
    ran = call("invite")
    assert ran.out == f"{INVITE}\n"
    assert "For one machine until 2026-01-31 08:16:20 UTC, as compute" in ran.err
    quiet = call("invite", "--quiet")
    assert (quiet.out, quiet.err) == (f"{INVITE}\n", "")


def test_invite_asks_for_what_the_options_say(agent: FakeApi, call: Call) -> None:
    call(
        "invite", "--expires", "2h", "--uses", "5", "--role", "a", "--role", "b", "--region", "eu",
        "--allow", "issue", "--deny", "submit", "--route", "10.1.0.0/16", "--route", "fd05::/64",
    )  # fmt: skip
    assert agent.asked == [
        (
            "invite",
            InviteRequest(
                expires_s=7_200,
                uses=5,
                roles=("a", "b"),
                region="eu",
                allow=("issue",),
                deny=("submit",),
                routes=("10.1.0.0/16", "fd05::/64"),
            ),
        )
    ]


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "1.5h", "1y", "-1h", "１h", "9999999999d"])
def test_a_duration_that_is_none_is_wrong_usage(agent: FakeApi, call: Call, text: str) -> None:
    ran = call("invite", "--expires", text)
    assert ran.code == 2
    assert ran.two_lines == (f"--expires {text!r} is not a duration", "write 90s, 30m, 24h or 7d")
    assert agent.asked == []


def test_stop_down_and_leave_say_what_happens(agent: FakeApi, call: Call) -> None:
    assert call("stop").out.startswith("the agent stops\n")
    assert call("down", "--json").json() == {"said": "the agent stops"}
    assert call("leave", "--force").out.startswith("this node has left\n")
    assert call("leave", "--quiet").out == ""
    assert agent.asked == [("stop", False), ("stop", True), ("leave", True), ("leave", False)]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (LocalFault("wrong", "mend it"), 2),
        (Refused("no", "ask"), 4),
        (EnvironmentFault("lacks wg", "apt install wireguard-tools"), 5),
        (PeerFault("rubbish", "try another"), 1),
        (MeshpeerError("it failed", "look"), 1),
    ],
)
def test_a_fault_is_two_lines_and_its_exit_code(
    agent: FakeApi, call: Call, fault: MeshpeerError, code: int
) -> None:
    agent.fault = fault
    ran = call("status", "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.two_lines == (fault.what, fault.hint)


def test_words_of_several_lines_still_make_two_lines(agent: FakeApi, call: Call) -> None:
    agent.fault = Refused("first\nsecond\x1b[1m", "third\r\nfourth")
    assert call("peers").two_lines == ("first second\\x1b[1m", "third fourth")


def test_a_fault_without_a_hint_points_to_help(agent: FakeApi, call: Call) -> None:
    agent.fault = PeerFault("rubbish")
    assert call("export", "wg-quick").two_lines[1].startswith("see `meshpeer export wg-quick --help`")


ASKING = [
    ("status",), ("peers",), ("plan",), ("map",), ("ping", "beta"), ("why", "beta"), ("export", "wg-quick"),
    ("invite",), ("stop",), ("down",), ("leave",), ("jobs", "list"), ("jobs", "status", "j"),
    ("jobs", "tasks", "j"), ("jobs", "watch", "j"), ("jobs", "logs", "j"), ("jobs", "result", "j", "t"),
    ("jobs", "cancel", "j"), ("jobs", "run", "--", "true"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_without_an_agent_every_question_ends_with_3(call: Call, arguments: tuple[str, ...]) -> None:
    ran = call(*arguments)
    assert (ran.code, ran.out) == (3, "")
    what, hint = ran.two_lines
    assert what.startswith("no agent is running here")
    assert "meshpeer init" in hint


def test_without_an_agent_a_member_is_told_to_start_it(call: Call, home: object) -> None:
    from pathlib import Path

    state = Path(str(home)) / "state"
    state.mkdir()
    (state / "node.json").write_text("{}")
    assert call("status").two_lines[1] == "start it with `meshpeer up`"


def test_documents_keep_every_letter(agent: FakeApi, call: Call) -> None:
    agent.members = [make_peer(name="名前\x1b", region="a\nb")]
    found = call("peers", "--json").json()
    assert msgspec.convert(found, list[dict[str, object]])[0]["name"] == "名前\x1b"
