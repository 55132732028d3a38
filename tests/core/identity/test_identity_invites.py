from __future__ import annotations

import base64
import hashlib
import re
import zlib
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import LocalFault, MeshpeerError, Refused
from meshpeer.core.identity.certificates import Authority, make_invite
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.identity.invite_dictionary import DICTIONARY
from meshpeer.core.identity.invites import PREFIX, TEXT_LENGTH_MAX, Invite, decode_invite, encode_invite
from meshpeer.core.wire import cbor

DAY = 86_400
SEEDS = ("203.0.113.7:51821", "[2001:db8::17]:51821", "seed.example.org:51821")
BODIES = st.dictionaries(
    st.sampled_from("kvirsn"), st.binary(max_size=40) | st.lists(st.text(max_size=5), max_size=3)
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class World(Protocol):
    """The shared mesh of ``conftest``."""

    now: int
    root: Authority
    issuer: Authority
    invite: Authority


def test_an_invite_survives_its_text(world: World) -> None:
    invite = invite_of(world)
    assert decode_invite(encode_invite(invite), now_unix_s=world.now) == invite


def test_an_invite_with_three_seeds_is_under_a_thousand_characters(world: World) -> None:
    text = encode_invite(invite_of(world))
    assert len(text) < 1_000
    assert re.fullmatch(r"meshpeer1\.[A-Za-z0-9_-]+", text)


def test_an_invite_says_who_and_what(world: World) -> None:
    invite = decode_invite(encode_invite(invite_of(world)), now_unix_s=world.now)
    assert invite.mesh == invite.constraints.mesh
    assert invite.id == world.invite.id
    assert invite.expires_at.timestamp() == world.now + DAY
    assert invite.chain == (world.invite.certificate, world.issuer.certificate)
    assert invite.constraints.uses == 2
    assert invite.mesh_name == "studio"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: f"  {text}\n",
        lambda text: "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        lambda text: "\u200b".join((text[:300], text[300:])),
        lambda text: f"\ufeff'{text}'",
        lambda text: f"`{text}`",
        lambda text: f"<{text}>\n",
        lambda text: "\u201c" + text + "\u201d",
    ],
)
def test_what_clipboards_and_mail_add_does_no_harm(world: World, wrap: object) -> None:
    assert callable(wrap)
    invite = invite_of(world)
    assert decode_invite(wrap(encode_invite(invite)), now_unix_s=world.now) == invite


def test_every_shortened_invite_is_called_cut_off(world: World) -> None:
    text = encode_invite(invite_of(world))
    for length in range(1, len(text)):
        fault = fault_of(text[:length], world)
        assert (type(fault), fault.what) == (LocalFault, "the invite is cut off"), length
        assert fault.hint.startswith("copy the whole line")


def test_every_mistyped_character_is_noticed(world: World) -> None:
    text = encode_invite(invite_of(world))
    for at in range(len(PREFIX) + 3, len(text) - 1):
        other = ALPHABET[(ALPHABET.index(text[at]) + 1 + at) % len(ALPHABET)]
        if other == text[at]:
            continue
        fault = fault_of(text[:at] + other + text[at + 1 :], world)
        assert (type(fault), fault.what) == (LocalFault, "the invite is mistyped"), at


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: "", "this is not an invite"),
        (lambda text: "192.0.2.1:51821", "this is not an invite"),
        (lambda text: text.removeprefix(PREFIX), "this is not an invite"),
        (
            lambda text: text.replace("meshpeer1.", "meshpeer2."),
            "this invite was made by another version of meshpeer",
        ),
        (lambda text: PREFIX, "the invite is cut off"),
        (lambda text: text[:500] + "!" + text[501:], "the invite holds '!', which no invite does"),
        (lambda text: text[:500] + "é" + text[501:], "the invite holds 'é', which no invite does"),
        (lambda text: text + "AAAA", "the invite goes on past its end"),
        (lambda text: text + " " + text, "the invite holds '.', which no invite does"),
        (lambda text: text + "A" * TEXT_LENGTH_MAX, "this is too long for an invite"),
        (lambda text: "x" * 1_000_000, "this is too long for an invite"),
    ],
)
def test_what_is_no_invite_is_told_apart(world: World, change: object, what: str) -> None:
    assert callable(change)
    fault = fault_of(change(encode_invite(invite_of(world))), world)
    assert (type(fault), fault.what, fault.exit_code) == (LocalFault, what, 2)
    assert fault.hint


def test_an_expired_invite_names_when_and_asks_for_a_new_one(world: World) -> None:
    with pytest.raises(Refused) as caught:
        decode_invite(encode_invite(invite_of(world)), now_unix_s=world.now + DAY + 60)
    assert caught.value.exit_code == 4
    assert caught.value.what == (
        "the invite expired at 2027-01-16 08:00:00 UTC (this machine's clock says 2027-01-16 08:01:00)"
    )
    assert caught.value.hint.startswith("ask for a new one: `meshpeer invite`")


def test_an_invite_is_good_to_its_last_second(world: World) -> None:
    text = encode_invite(invite_of(world))
    decode_invite(text, now_unix_s=world.now + DAY)
    with pytest.raises(Refused):
        decode_invite(text, now_unix_s=world.now + DAY + 1)


def test_an_invite_of_the_future_blames_the_clock(world: World) -> None:
    with pytest.raises(Refused) as caught:
        decode_invite(encode_invite(invite_of(world)), now_unix_s=world.now - DAY)
    assert caught.value.what == (
        "the invite is valid from 2027-01-15 07:00:00 UTC on (this machine's clock says 2027-01-14 08:00:00)"
    )
    assert "set this machine's clock" in caught.value.hint


def test_an_altered_invite_is_refused(world: World, other_world: World) -> None:
    invite, foreign = invite_of(world), invite_of(other_world)
    for altered in (
        changed(invite, authority=Authority(b"k" * 32, invite.authority.certificate)),
        changed(invite, authority=foreign.authority),
        changed(invite, issuer=foreign.issuer),
        changed(invite, roots=foreign.roots),
        changed(invite, roots=(invite.issuer,)),
        changed(invite, issuer=invite.roots[0]),
        changed(invite, authority=world.issuer),
        changed(invite, authority=Authority(invite.authority.seed, b"no certificate")),
        changed(invite, roots=(b"",)),
    ):
        fault = fault_of(encode_invite(altered), world)
        assert isinstance(fault, Refused)
        assert fault.what.startswith("the invite was altered: ")


def test_an_invite_behind_an_issuer_that_has_ended_says_so(world: World) -> None:
    fault = fault_of(encode_invite(invite_of(world)), world, now=world.now + 11 * 365 * DAY)
    assert fault.what.startswith(
        "the issuer certificate behind the invite expired at 2037-01-12 08:00:00 UTC"
    )
    assert fault.exit_code == 4


def test_a_bomb_inflates_no_further_than_its_bound(world: World) -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = squeezer.compress(b"\x00" * 2_000_000) + squeezer.flush()
    fault = fault_of(armoured(packed), world)
    assert isinstance(fault, Refused)
    assert "too large" in fault.what


@pytest.mark.parametrize(
    "seed", ["nowhere", "host:port", "host:123456", "a b:1", "host:1\n", "", "x" * 300 + ":1"]
)
def test_a_seed_that_is_no_endpoint_is_not_put_in(world: World, seed: str) -> None:
    with pytest.raises(LocalFault, match="can't hold this"):
        encode_invite(changed(invite_of(world), seeds=(seed,)))


def test_an_invites_key_is_in_no_repr(world: World) -> None:
    invite = invite_of(world)
    shown = f"{invite!r} {invite} {invite.authority!r} {[invite]}"
    secret = invite.authority.seed
    for form in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]):
        assert form not in shown


def test_two_seconds_make_two_invites(world: World) -> None:
    other = make_invite(
        world.issuer,
        b"2" * 32,
        capabilities=INVITE_DEFAULT,
        uses=1,
        expires_s=60,
        now_unix_s=world.now,
        serial=bytes(8),
    )
    assert changed(invite_of(world), authority=other).id != invite_of(world).id


# --- the format ---


def test_the_dictionary_never_changes() -> None:
    assert hashlib.sha256(DICTIONARY).hexdigest() == (
        "6b59bd8cf3799b96265fc58207d9a6750da727ef3aed41efeaaa87aac4c793af"
    )


def test_an_invite_of_the_first_version_is_read_for_good() -> None:
    invite = decode_invite(FIRST_VERSION, now_unix_s=1_800_000_000)
    assert invite.seeds == SEEDS
    assert invite.mesh_name == "studio"
    assert invite.constraints.capabilities == ("member", "submit", "work", "hub", "relay")
    assert (invite.constraints.roles, invite.constraints.region) == (("compute", "storage"), "eu-west")


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_forged_text_gains_nothing_and_raises_only_what_is_documented(
    world: World, data: st.DataObject
) -> None:
    """With length and CRC made good, only seeds and the mesh's name can change: nothing rests on them."""
    invite = invite_of(world)
    packed = raw_of(encode_invite(invite))[6:]
    start = data.draw(st.integers(0, len(packed)))
    end = data.draw(st.integers(start, min(start + 6, len(packed))))
    forged = packed[:start] + data.draw(st.binary(max_size=6)) + packed[end:]
    try:
        read = decode_invite(armoured(forged), now_unix_s=world.now)
    except (LocalFault, Refused):
        return
    assert changed(read, seeds=invite.seeds, mesh_name=invite.mesh_name) == invite


@given(text=st.text(max_size=60) | st.text(ALPHABET, max_size=60).map(PREFIX.__add__))
@settings(max_examples=150, deadline=None)
def test_rubbish_is_refused_and_nothing_else_is_raised(world: World, text: str) -> None:
    fault = fault_of(text, world)
    assert isinstance(fault, LocalFault | Refused)


@given(body=BODIES)
@settings(max_examples=60, deadline=None)
def test_bodies_of_the_wrong_shape_are_refused(world: World, body: dict[str, object]) -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    packed = squeezer.compress(cbor.encode(body)) + squeezer.flush()
    assert isinstance(fault_of(armoured(packed), world), Refused)


# --- helpers ---


def invite_of(world: World) -> Invite:
    return Invite(
        authority=world.invite,
        issuer=world.issuer.certificate,
        roots=(world.root.certificate,),
        seeds=SEEDS,
        mesh_name="studio",
    )


def changed(
    invite: Invite,
    *,
    authority: Authority | None = None,
    issuer: bytes | None = None,
    roots: tuple[bytes, ...] | None = None,
    seeds: tuple[str, ...] | None = None,
    mesh_name: str | None = None,
) -> Invite:
    return Invite(
        authority=authority or invite.authority,
        issuer=invite.issuer if issuer is None else issuer,
        roots=invite.roots if roots is None else roots,
        seeds=invite.seeds if seeds is None else seeds,
        mesh_name=invite.mesh_name if mesh_name is None else mesh_name,
    )


def fault_of(text: str, world: World, *, now: int | None = None) -> MeshpeerError:
    with pytest.raises(MeshpeerError) as caught:
        decode_invite(text, now_unix_s=world.now if now is None else now)
    return caught.value


def raw_of(text: str) -> bytes:
    encoded = text.removeprefix(PREFIX)
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def armoured(packed: bytes) -> str:
    raw = (len(packed) & 0xFFFF).to_bytes(2, "big") + zlib.crc32(packed).to_bytes(4, "big") + packed
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


FIRST_VERSION = (
    "meshpeer1.Apwg8GVBW4YtV7FpKYb3THudiTMVpZcW56YkGpVnpILDx9zA0NDUwByWz0BcIwMLnPksP6-gPKMguaTCDDmkiu"
    "OT9wTv33T-_aMTj4zva4r3uIbaKTEvtDKIuKbIYN0jSlaOZJSvVPX_xF2BEqLrElnW77fx0qJBDoUZLfLmocDJOD4_REDX8c"
    "gLLEkV3LQk7EW14lPxlSpvVAzfb8uYIdF39v21QjWmp39LU81_CW99tX9pX02N_-qANqNXtl5luqfkz9SsePyIA5Tj53gcYi"
    "kprsyrWeI37clLlnIZo-BJHQ99ubndknkPJE19m5iXVlxSmpKZj7VMCNa3cP3Z06xLTKwqoMUquJQACgC5FjhKCSTdSLFqqn"
    "KwOczShvHxhR0TODR_C6qzPdrwO6mjui51amlGy8IWssoTeARijVVqly-443RZ6duIzTdFjBZEbvtdUPvzz66bAf8CE9KOVB"
    "QHMZ-3P-vdxqg9d1bM0oBj7h3GKkzLInJaNOVLNMKOGPVZi72rcmBJLG4uNDIwBhVOhsZ65pACqiQaWBIbWqUkWVhZGZrHQg"
    "TLilNTU_RSKxJzC3JS9fKL0hGF2UlgFB8F4nJoNHPf2_j_q7zjVDyFGlIGxMy-YK4Z1uwLKd5SigvMzLJTEitzkCNaZv57jY"
    "RDx04_9T-V9szug39f4Wol5byb-35ujE3cN-N_0-LGawaNl0ksCMtYF7C8XeO0EiWi4Xm6sQV7TOcuJ1gypqenluqWpxaXIJ"
    "eR6BGdmNeYA6w8jMD1h76hWWJRE6wMTS8uyS9KTAeWpUyI5DBfv5w94bPSqeB9Qecr2hu87vw61Lb93blzDpdjJbbNesyzOZ"
    "zzhXBI-hazVt6rZkd_--92MlwvPHGD8uQnRvePMa3iAAA"
)
"""Made of throw-away keys; what it opens has never existed."""
