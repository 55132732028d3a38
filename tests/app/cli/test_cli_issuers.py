"""What `meshpeer issuer` and `meshpeer root` ask, sign, print and refuse."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import msgspec
import pytest
from cli_calls import Call
from fake_control_api import FakeApi

from meshpeer.app.papers import encode_request
from meshpeer.app.root_key import RootKey, decrypted, encrypted, write_export
from meshpeer.core.errors import LocalFault, MeshpeerError
from meshpeer.core.identity.certificates import (
    constraints_of,
    make_durable_leaf,
    make_issuer,
    make_root,
    mesh_id_of,
    public_key_of,
)
from meshpeer.core.identity.chains import verify_issuer
from meshpeer.core.identity.constraints import ALL
from meshpeer.core.identity.keys import SigningKey, encode_key_file
from meshpeer.core.identity.line import check_line
from meshpeer.core.records.issuer_request import make_request
from meshpeer.runtime.control import IssuerInfo, IssuerKey, RootInfo, Roots

NOW = 1_790_000_000
ROOT = make_root(b"r" * 32, now_unix_s=NOW, serial=bytes(8))
ISSUER = make_issuer(ROOT, b"i" * 32, now_unix_s=NOW, serial=bytes(8))
MESH = mesh_id_of(public_key_of(ROOT.certificate))
NODE = SigningKey(b"n" * 32)
CHAIN = (
    make_durable_leaf(
        ISSUER, NODE.public, capabilities=ALL, admitted_at=NOW, now_unix_s=NOW, serial=bytes(8)
    ),
    ISSUER.certificate,
)
REQUEST = make_request(NODE, b"k" * 32, MESH, NOW)
PASSPHRASE = "correct horse"


@pytest.fixture
def founder(agent: FakeApi, home: Path) -> FakeApi:
    """An agent whose machine keeps the root's key."""
    keys = home / "state" / "keys"
    keys.mkdir(parents=True)
    for name, text in (("root.key", encode_key_file("root", ROOT.seed)),):
        (keys / name).write_text(text)
        (keys / name).chmod(0o600)
    agent.line = roots_of(ROOT.certificate)
    agent.shown_key = IssuerKey(node="delta", request=REQUEST, chain=CHAIN)
    return agent


def roots_of(*line: bytes) -> Roots:
    found = tuple(
        RootInfo(
            id=hashlib.sha256(public_key_of(one)).digest()[:8].hex(),
            number=place + 1,
            since="2026-11-26T00:00:00.000000Z",
            until="2056-11-18T00:00:00.000000Z",
            retired_at=None,
            members=3,
            certificate=one,
        )
        for place, one in enumerate(line)
    )
    return Roots(mesh=MESH, roots=found, issuers=(ISSUER.certificate,))


# --- issuers ------------------------------------------------------------------------------------------------


def test_the_list_says_who_since_when_until_when_and_when_it_was_heard_of(agent: FakeApi, call: Call) -> None:
    assert call("issuer", "list").out == "Nobody is known to be an issuer.\n"
    agent.listed_issuers = [
        issuer(me=True),
        issuer(node="bravo", alive=False),
        issuer(node="", heard_at=None),
        msgspec.structs.replace(issuer(node="charlie", alive=False), left=True),
    ]
    first, second, third, fourth = call("issuer", "list").out.splitlines()
    assert first == (
        "alpha (this node): issuer 0f1e2d3c4b5a6978 since 2026-11-26 until 2036-11-23, signed 2 members, up"
    )
    assert second.endswith("heard of at 2026-11-26 08:00:00 UTC")
    assert third.startswith("nobody says who: issuer ")
    assert fourth.endswith(", left the mesh")
    listed = call("issuer", "list", "--json").json()
    assert isinstance(listed, list)
    assert listed[0].keys() >= {"id", "node", "since", "until", "heard_at", "issued", "root"}


def test_add_signs_what_the_member_showed_with_the_key_beside_the_node(founder: FakeApi, call: Call) -> None:
    assert call("issuer", "add", "delta").out.startswith("delta is an issuer")
    assert ("issuer_key", "delta") in founder.asked
    ((_, (certificate,), statements),) = [one for one in founder.asked if one[0] == "add_signed"]
    assert statements == ()
    assert verify_issuer(certificate, (ROOT.certificate,), MESH) == (SigningKey(b"k" * 32).public, 0)
    assert constraints_of(certificate).holder == NODE.public


def test_add_takes_a_request_that_was_carried_by_hand(founder: FakeApi, call: Call, home: Path) -> None:
    (home / "request.txt").write_text(encode_request(REQUEST, CHAIN) + "\n")
    assert call("issuer", "add", "--request", str(home / "request.txt")).code == 0
    assert "issuer_key" not in {one[0] for one in founder.asked}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("add",), 2, "name a member, or give its request"),
        (("add", "delta", "--request", "x"), 2, "name a member, or give its request"),
        (("add", "--request", "meshpeer-issuer-request1.AAAA"), 2, "cut off or altered"),
        (("add", "--request", "whatever"), 2, "this is not what `meshpeer issuer request` printed"),
        (("sign", "whatever"), 2, "no root's key is lent"),
        (("accept", "whatever"), 2, "this is not what `meshpeer issuer sign` printed"),
    ],
)
def test_what_can_not_be_signed_is_refused_in_two_lines(
    founder: FakeApi, call: Call, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = call("issuer", *arguments)
    assert ran.code == code
    assert says in ran.two_lines[0]
    assert not [one for one in founder.asked if one[0] == "add_signed"]


def test_a_request_of_a_stranger_is_not_signed(founder: FakeApi, call: Call) -> None:
    other = make_root(b"o" * 32, now_unix_s=NOW, serial=bytes(8))
    theirs = make_issuer(other, b"i" * 32, now_unix_s=NOW, serial=bytes(8))
    founder.shown_key = IssuerKey(node="delta", request=REQUEST, chain=(CHAIN[0], theirs.certificate))
    ran = call("issuer", "add", "delta")
    assert ran.code == 4
    assert "can't be signed" in ran.two_lines[0]


# --- roots --------------------------------------------------------------------------------------------------


def test_without_the_roots_key_it_says_how_to_use_its_file(agent: FakeApi, call: Call) -> None:
    agent.line = roots_of(ROOT.certificate)
    agent.shown_key = IssuerKey(node="delta", request=REQUEST, chain=CHAIN)
    ran = call("issuer", "add", "delta")
    assert ran.code == 4
    assert ran.two_lines[0] == "the root's key is not on this node"
    assert "meshpeer root use FILE" in ran.two_lines[1]


def test_a_lent_key_signs_and_is_lent_to_one_command_only(
    agent: FakeApi, call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.line = roots_of(ROOT.certificate)
    agent.shown_key = IssuerKey(node="delta", request=REQUEST, chain=CHAIN)
    file = exported(home)
    monkeypatch.setenv("MESHPEER_ROOT_PASSPHRASE", PASSPHRASE)
    assert call("root", "use", str(file), "--", "issuer", "add", "delta").code == 0
    assert [one for one in agent.asked if one[0] == "add_signed"]
    assert call("issuer", "add", "delta").code == 4
    ran = call("root", "use", str(file))
    assert ran.out.startswith("root 1 of the mesh ")
    assert ROOT.id.hex() in ran.out


def test_rotate_lets_the_new_root_sign_every_issuer_and_keeps_both_keys(
    founder: FakeApi, call: Call, home: Path
) -> None:
    ran = call("root", "rotate")
    assert ran.code == 0, ran.err
    ((_, certificates, _),) = [one for one in founder.asked if one[0] == "add_signed"]
    line = (ROOT.certificate, certificates[0])
    check_line(line, MESH)
    assert verify_issuer(certificates[1], line, MESH) == (public_key_of(ISSUER.certificate), 1)
    keys = home / "state" / "keys"
    assert {one.name for one in keys.iterdir()} == {"root.key", f"root-{ROOT.id.hex()}.key"}
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in keys.iterdir())
    founder.line = roots_of(*line)
    assert call("root", "rotate").code == 0, "the key beside the node is the new one's now"


def test_retire_refuses_where_members_would_be_out(founder: FakeApi, call: Call) -> None:
    second = make_root(b"2" * 32, now_unix_s=NOW, serial=bytes(8), above=ROOT)
    founder.line = roots_of(ROOT.certificate, second.certificate)
    founder.would_be_out = ("delta", "echo")
    ran = call("root", "retire")
    assert ran.code == 4
    assert ran.two_lines[0].startswith("delta, echo would be out")
    assert call("root", "retire", "--force").out.startswith("the root 0000000000000000 is retired")
    assert len(call("root", "list").out.splitlines()) == 2


# --- the file -----------------------------------------------------------------------------------------------


def test_a_file_is_made_once_for_its_owner_and_opens_with_its_passphrase_alone(home: Path) -> None:
    file = exported(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    data = file.read_bytes()
    assert ROOT.seed not in data
    assert decrypted(data, PASSPHRASE, "it") == RootKey(ROOT.seed, (ROOT.certificate,))
    with pytest.raises(LocalFault, match="can't be decrypted"):
        decrypted(data, PASSPHRASE + "!", "it")
    with pytest.raises(LocalFault, match="exists already"):
        exported(home)
    assert "r" * 32 not in repr(RootKey(ROOT.seed, (ROOT.certificate,)))


def test_a_short_passphrase_is_none() -> None:
    with pytest.raises(LocalFault, match="at least 8 characters"):
        encrypted(RootKey(ROOT.seed, (ROOT.certificate,)), "short")


def test_a_file_with_other_certificates_is_refused(home: Path) -> None:
    mine = encrypted(RootKey(ROOT.seed, (ROOT.certificate,)), PASSPHRASE)
    other = make_root(b"o" * 32, now_unix_s=NOW, serial=bytes(8))
    theirs = encrypted(RootKey(other.seed, (other.certificate,)), PASSPHRASE)
    begin = b"-----BEGIN CERTIFICATE-----"
    mixed = mine.partition(begin)[0] + begin + theirs.partition(begin)[2]
    for data in (mixed, mine.partition(begin)[0], b"", b"rubbish", mine[:-200]):
        with pytest.raises(MeshpeerError):
            decrypted(data, PASSPHRASE, "it")


def test_without_a_terminal_it_says_where_a_passphrase_may_come_from(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHPEER_ROOT_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    ran = call("root", "use", str(exported(home)))
    assert ran.code == 2
    assert "--passphrase-file FILE" in ran.two_lines[1]
    (home / "secret").write_text(PASSPHRASE + "\n")
    assert call("root", "use", str(home / "root.pem"), "--passphrase-file", str(home / "secret")).code == 0


# --- helpers ------------------------------------------------------------------------------------------------


def exported(home: Path) -> Path:
    file = home / "root.pem"
    write_export(file, RootKey(ROOT.seed, (ROOT.certificate,)), PASSPHRASE)
    return file


def issuer(
    *,
    node: str = "alpha",
    me: bool = False,
    alive: bool = True,
    heard_at: str | None = "2026-11-26T08:00:00.000000Z",
) -> IssuerInfo:
    return IssuerInfo(
        id="0f1e2d3c4b5a6978",
        node=node,
        me=me,
        alive=alive and heard_at is not None,
        since="2026-11-26T00:00:00.000000Z",
        until="2036-11-23T00:00:00.000000Z",
        heard_at=heard_at,
        issued=2,
        root=ROOT.id.hex(),
    )
