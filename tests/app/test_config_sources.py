"""Settings: which source wins, and how an error says where it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from meshpeer.app.config import FLAGS, File, Settings, load_settings
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.rules import WEBHOOK_ALLOW

Write = Callable[[str], dict[str, object]]


def test_defaults_need_nothing_in_the_file(write: Write) -> None:
    settings = load_settings(write(""), {})
    assert settings.file == File()
    assert settings.socket == Path("/run/meshpeer/agent.sock")
    assert settings.slots >= 1
    assert settings.uids == range(61000, 61064)


def test_every_key_of_the_contract_is_read(write: Write) -> None:
    settings = load_settings(write(EVERYTHING), {})
    file = settings.file
    assert (file.node.name, file.node.region, file.node.hub, file.node.labels) == (
        "alpha",
        "eu",
        "allow",
        {"disk": "ssd"},
    )
    assert (file.mesh.seeds, file.mesh.mdns, file.mesh.hosts_file) == (("203.0.113.9:51821",), True, True)
    assert (file.wireguard.backend, file.wireguard.interface, file.wireguard.listen_port) == (
        "auto",
        "wg0",
        51820,
    )
    assert (file.control.listen_port, file.control.web_port, file.control.socket_group) == (51821, 51822, "")
    assert (file.jobs.accept, file.jobs.slots, file.jobs.resources, file.jobs.from_) == (
        True,
        4,
        {"gpu": 1},
        ("*",),
    )
    assert (file.jobs.uids, file.jobs.cache_bytes_max) == ("61000-61063", 10737418240)
    relay = file.relay
    assert (relay.accept, relay.pairs_max, relay.mbit_max, relay.pair_mbit_max) == (True, 4, 100, 50)
    assert settings.relay_ports == range(52000, 52010)
    assert (file.webhooks.callback_base, file.webhooks.secret_file) == ("", "")
    assert (file.log.level, file.log.format) == ("info", "auto")


def test_seeds_may_be_ports_that_ssh_forwards(write: Write) -> None:
    mesh = load_settings(write('[mesh]\nseeds = ["127.0.0.1:51900"]\nvia = "ssh"\n'), {}).file.mesh
    assert (mesh.seeds, mesh.via) == (("127.0.0.1:51900",), "ssh")
    assert load_settings(write(""), {}).file.mesh.via == ""
    with pytest.raises(LocalFault, match=r"meshpeer\.toml:2: via under \[mesh\]: there are no seeds"):
        load_settings(write('[mesh]\nvia = "ssh"\n'), {})
    with pytest.raises(LocalFault, match="via under"):
        load_settings(write('[mesh]\nseeds = ["127.0.0.1:51900"]\nvia = "pigeon"\n'), {})


def test_a_node_that_relays_for_nobody_lends_no_ports(write: Write) -> None:
    assert load_settings(write(""), {}).relay_ports == range(51830, 51930)
    assert not load_settings(write("[relay]\naccept = false\n"), {}).relay_ports
    # Whose port stands in the range is then nobody's concern.
    load_settings(write("[relay]\naccept = false\nports = '51800-51899'\n"), {})


def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(write: Write) -> None:
    flags = write("[wireguard]\nlisten_port = 1000\ninterface = 'file0'\nbackend = 'kernel'\n")
    environment = {"MESHPEER_LISTEN_PORT": "2000", "MESHPEER_INTERFACE": "env0"}
    found = load_settings({**flags, "listen_port": "3000"}, environment).file.wireguard
    assert (found.listen_port, found.interface, found.backend) == (3000, "env0", "kernel")


def test_a_flag_of_zero_counts_as_given(write: Write) -> None:
    flags = write("[control]\nlisten_port = 1000\n")
    assert load_settings({**flags, "control_port": "0"}, {}).file.control.listen_port == 0


def test_an_empty_variable_counts_as_absent(write: Write) -> None:
    assert load_settings(write(""), {"MESHPEER_STATE_DIR": "", "MESHPEER_LISTEN_PORT": ""}).file == File()


def test_folders_come_from_variables_too(tmp_path: Path) -> None:
    settings = load_settings(
        {}, {"MESHPEER_STATE_DIR": str(tmp_path / "s"), "MESHPEER_RUN_DIR": str(tmp_path / "r")}
    )
    assert (settings.state_dir, settings.socket) == (tmp_path / "s", tmp_path / "r" / "agent.sock")


def test_relative_folders_become_absolute(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        load_settings({**write(""), "state_dir": "here", "run_dir": "../there"}, {}).state_dir
        == tmp_path / "here"
    )


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="does not exist"):
        load_settings({"config": str(tmp_path / "absent.toml")}, {})


def test_advertised_lans_become_canonical_and_none_is_the_default(write: Write) -> None:
    text = "[node]\nadvertise = ['FD05::/64', '192.168.5.0/255.255.255.0']\nadvertise_nat = false\n"
    node = load_settings(write(text), {}).file.node
    assert (node.advertise, node.advertise_nat) == (("192.168.5.0/24", "fd05::/64"), False)
    node = load_settings({}, {}).file.node
    assert (node.advertise, node.advertise_nat) == ((), True)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (
            "[wireguard]\nlisten_prt = 1\n",
            "meshpeer.toml:2: unknown key listen_prt under [wireguard]",
            "listen_port",
        ),
        ("[node]\n[wiregard]\n", "meshpeer.toml:2: unknown section [wiregard]", "did you mean wireguard?"),
        ("\nname = 'x'\n", "meshpeer.toml:2: unknown key name", "known sections: node"),
        ("node = 3\n", "meshpeer.toml:1: node is no section", "[node]"),
        ("[jobs]\nzzz = 1\n", "unknown key zzz", "known keys: accept, slots"),
        ("[jobs]\nslots = 'four'\n", "meshpeer.toml:2: slots under [jobs]: expected int, got str", "type"),
        (
            "[node]\nlabels = {disk = 3}\n",
            "meshpeer.toml:2: labels under [node]: expected str, got int",
            "type",
        ),
        ("[mesh]\nseeds = ['a', 2]\n", "meshpeer.toml:2: seeds under [mesh]: expected str, got int", "type"),
        (
            "[wireguard]\nbackend = 'magic'\n",
            "meshpeer.toml:2: backend under [wireguard]: invalid enum",
            "type",
        ),
        (
            "[control]\n\nweb_port = 65536\n",
            "meshpeer.toml:3: web_port under [control]: 65536 is not a port",
            "65535",
        ),
        ("[wireguard]\nlisten_port = -1\n", "listen_port under [wireguard]: -1 is not a port", "65535"),
        ("[wireguard]\ninterface = 'a b'\n", "'a b' can't name an interface", "wg0"),
        ("[wireguard]\ninterface = 'sixteen_letters_'\n", "can't name an interface", "15"),
        ("[jobs]\nslots = 5000\n", "slots under [jobs]: 5000 is out of range", "4096"),
        ("[jobs]\ncache_bytes_max = -1\n", "cache_bytes_max under [jobs]: -1 is out of range", "bytes"),
        (
            '[jobs]\npython = "python3"\n',
            "python under [jobs]: 'python3' is no absolute path",
            "/usr/bin/python3",
        ),
        ("[jobs]\nuids = '0-10'\n", "uids under [jobs]: '0-10' is not FIRST-LAST above 999", "61000-61063"),
        ("[jobs]\nuids = '62000-61000'\n", "is not FIRST-LAST", "61000-61063"),
        ("[jobs]\nuids = 'many'\n", "is not FIRST-LAST", "61000-61063"),
        ("[node]\nadvertise = '10.0.0.0/8'\n", "advertise under [node]: expected array, got str", "type"),
        (
            "[node]\nadvertise = ['192.168.5.7/24']\n",
            "meshpeer.toml:2: advertise under [node]: 192.168.5.7/24 has host bits",
            "did you mean 192.168.5.0/24?",
        ),
        (
            "[node]\n\nadvertise = ['192.168.5.0/24', '0.0.0.0/0']\n",
            "meshpeer.toml:3: advertise under [node]: '0.0.0.0/0' can't be advertised: it is as wide",
            "for example 192.168.5.0/24",
        ),
        (
            f"[node]\nadvertise = {[f'10.0.{one}.0/24' for one in range(9)]}\n",
            "advertise under [node]: 9 routes are too many",
            "one node can have up to 8",
        ),
        ("[node]\nadvertise_nat = 1\n", "advertise_nat under [node]: expected bool, got int", "type"),
        ("[relay]\nports = '80-90'\n", "ports under [relay]: '80-90' is not FIRST-LAST", "51830-51929"),
        ("[relay]\nports = '51830-51830'\n", "two ports or more", "51830-51929"),
        ("[relay]\nports = '51830-70000'\n", "between 1024 and 65535", "51830-51929"),
        ("[relay]\nports = 'some'\n", "meshpeer.toml:2: ports under [relay]: 'some'", "51830-51929"),
        ("[relay]\nports = '51800-51899'\n", "51800-51899 holds WireGuard's own port", "leave 51820 out"),
        ("[relay]\npairs_max = 257\n", "pairs_max under [relay]: 257 is out of range", "256"),
        ("[relay]\nmbit_max = 0\n", "mbit_max under [relay]: 0 is out of range", "accept = false"),
        ("[relay]\npair_mbit_max = -1\n", "pair_mbit_max under [relay]: -1 is out of range", "accept"),
        ("[relay]\nport = 1\n", "unknown key port under [relay]", "did you mean ports?"),
        ("[node\n", "is not valid TOML", "line"),
    ],
)
def test_an_error_names_file_line_and_key(write: Write, text: str, what: str, hint: str) -> None:
    with pytest.raises(LocalFault) as caught:
        load_settings(write(text), {})
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("flags", "environment", "what"),
    [
        ({"listen_port": "many"}, {}, "--listen-port: 'many' is not a number"),
        ({"listen_port": "70000"}, {}, "--listen-port: 70000 is not a port"),
        ({}, {"MESHPEER_CONTROL_PORT": "70000"}, "MESHPEER_CONTROL_PORT: 70000 is not a port"),
        ({}, {"MESHPEER_SLOTS": "-1"}, "MESHPEER_SLOTS: -1 is out of range"),
        ({"backend": "magic"}, {"MESHPEER_BACKEND": "kernel"}, "--backend: invalid enum value 'magic'"),
        ({"interface": "x" * 16}, {}, "--interface: "),
    ],
)
def test_an_error_names_the_flag_or_the_variable(
    flags: dict[str, object], environment: dict[str, str], what: str
) -> None:
    with pytest.raises(LocalFault) as caught:
        load_settings(flags, environment)
    assert what in caught.value.what


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "meshpeer.toml"
    path.write_bytes(b"\xff\xfe[node]")
    with pytest.raises(LocalFault, match="not UTF-8"):
        load_settings({"config": str(path)}, {})


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="can't be read"):
        load_settings({"config": str(tmp_path)}, {})


def test_each_flag_overrides_a_key_that_exists(write: Write) -> None:
    values = {"backend": "none", "interface": "wg9", "uids": "70000-70001", "log_level": "debug"}
    for flag in FLAGS[3:]:
        changed = load_settings({**write(""), flag: values.get(flag, "7")}, {})
        assert changed.file != File(), flag


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().state_dir = Path("/elsewhere")  # type: ignore[misc]
    assert all(msgspec.structs.fields(field.type) for field in msgspec.structs.fields(File))


# --- helpers -----------------------------------------------------------

EVERYTHING = """
[node]
name = "alpha"
region = "eu"
hub = "allow"
labels = {disk = "ssd"}
endpoint = "203.0.113.9:51820"
[mesh]
seeds = ["203.0.113.9:51821"]
mdns = true
hosts_file = true
[wireguard]
backend = "auto"
interface = "wg0"
listen_port = 51820
[control]
listen_port = 51821
web_port = 51822
socket_group = ""
[relay]
accept = true
ports = "52000-52009"
pairs_max = 4
mbit_max = 100
pair_mbit_max = 50
[jobs]
accept = true
slots = 4
resources = {gpu = 1}
uids = "61000-61063"
from = ["*"]
cache_bytes_max = 10737418240
[webhooks]
callback_base = ""
secret_file = ""
[log]
level = "info"
format = "auto"
"""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('allow = ["*"]', "allow under [webhooks]: '*' is no URL of a webhook"),
        ('allow = ["http://a:1/?x"]', "allow under [webhooks]: 'http://a:1/?x' has a query"),
        (
            'callback_base = "proxy"',
            "callback_base under [webhooks]: 'proxy' is nothing to put",
        ),
        (
            'callback_base = "http://a/"',
            "callback_base under [webhooks]: 'http://a/' is nothing",
        ),
        ('secret_file = "s"', "secret_file under [webhooks]: 's' is no absolute path"),
    ],
)
def test_what_webhooks_can_not_have_is_said_at_its_line(write: Write, text: str, what: str) -> None:
    with pytest.raises(LocalFault) as caught:
        load_settings(write(f"[webhooks]\n{text}\n"), {})
    assert f"meshpeer.toml:2: {what}" in caught.value.what
    assert caught.value.hint


def test_webhooks_are_loopbacks_where_nothing_is_said(write: Write) -> None:
    assert load_settings(write(""), {}).file.webhooks.allow == WEBHOOK_ALLOW
    assert load_settings(write("[webhooks]\nallow = []\n"), {}).file.webhooks.allow == ()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> dict[str, object]:
        path = tmp_path / "meshpeer.toml"
        path.write_text(text, "utf-8")
        return {"config": str(path)}

    return write
