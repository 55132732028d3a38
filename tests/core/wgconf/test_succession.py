"""A next key is let in, takes over with its first handshake, and then both are one tunnel."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.identity.keys import WireGuardPrivateKey
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.wgconf.after import device_after
from meshpeer.core.wgconf.diff import describe_drift, diff_device
from meshpeer.core.wgconf.model import DesiredDevice, DesiredPeer, ObservedDevice, SetPeer, SetPrivateKey
from meshpeer.core.wgconf.succession import joined_peer, settle_peers

MINE, NEXT = (WireGuardPrivateKey(bytes([number]) * 32) for number in (1, 2))
A, A2, B, B2 = (WireGuardPrivateKey(bytes([number]) * 32).public for number in (3, 4, 5, 6))
NOW = 1_900_000_000.0


def test_a_next_key_is_let_in_with_nothing_and_nowhere_to_send() -> None:
    steps = diff_device(holding(device()), device(successor=A2), now_unix_s=NOW)
    assert steps == (SetPeer(public_key=A2, allowed_ips=()),)


def test_its_first_handshake_moves_what_the_peer_owns_in_one_go() -> None:
    wanted = device(successor=A2)
    observed = shaken(holding(wanted), A2)
    steps = diff_device(observed, wanted, now_unix_s=NOW)
    assert steps == (
        SetPeer(public_key=A, allowed_ips=()),
        *sorted(
            (
                SetPeer(public_key=A, keepalive_s=0),
                SetPeer(public_key=A2, allowed_ips=("10.10.0.2/32",), keepalive_s=25),
            ),
            key=lambda step: step.public_key,
        ),
    )
    after = device_after(observed, steps)
    assert after is not None
    assert diff_device(after, wanted, now_unix_s=NOW) == ()
    assert describe_drift(after, wanted, {}) == []


def test_a_handshake_of_the_present_key_moves_nothing() -> None:
    wanted = device(successor=A2)
    assert diff_device(shaken(holding(wanted), A), wanted, now_unix_s=NOW) == ()


def test_a_record_that_shows_the_next_key_drops_the_one_before() -> None:
    between = device(successor=A2)
    observed = shaken(holding(between), A2)
    after = device_after(observed, diff_device(observed, between, now_unix_s=NOW))
    left = device_after(after, diff_device(after, device(key=A2), now_unix_s=NOW))
    assert left is not None
    assert [(peer.public_key, peer.allowed_ips) for peer in left.peers if peer.public_key != B] == [
        (A2, ("10.10.0.2/32",))
    ]


def test_a_key_that_is_somebodys_own_is_nobodys_next() -> None:
    for taken in (B, MINE.public):
        wanted = device(successor=taken)
        assert settle_peers(shaken(holding(wanted), B), wanted) == device().peers


def test_a_changed_private_key_shakes_hands_with_all_that_have_an_endpoint() -> None:
    before = device(successor=A2)
    wanted = dataclasses.replace(before, private_key=NEXT.secret, public_key=NEXT.public)
    steps = diff_device(holding(before), wanted, now_unix_s=NOW)
    assert steps[0] == SetPrivateKey(private_key=NEXT.secret)
    assert set(steps[1:]) == {
        SetPeer(public_key=key, keepalive_s=keepalive_s) for key in (A, B) for keepalive_s in (0, 25)
    }
    after = device_after(holding(before), steps)
    assert after is not None
    assert diff_device(after, wanted, now_unix_s=NOW) == ()


def test_without_keepalives_one_is_sent_all_the_same() -> None:
    before = device(keepalive_s=0)
    wanted = dataclasses.replace(before, private_key=NEXT.secret, public_key=NEXT.public)
    steps = [
        step
        for step in diff_device(holding(before), wanted, now_unix_s=NOW)
        if isinstance(step, SetPeer) and step.public_key == A
    ]
    assert [step.keepalive_s for step in steps] == [0, 1, 0]


def test_two_keys_of_one_tunnel_add_up() -> None:
    old, new = (
        next(peer for peer in shaken(holding(device(successor=A2)), key).peers if peer.public_key == key)
        for key in (A, A2)
    )
    joined = joined_peer(dataclasses.replace(old, rx_bytes=700), dataclasses.replace(new, rx_bytes=32))
    assert (joined.public_key, joined.rx_bytes, joined.endpoint) == (A2, 732, old.endpoint)
    assert joined.allowed_ips == ("10.10.0.2/32",)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, A2, B2, B, MINE.public]), st.sampled_from([None, A2, B2, A])),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.sampled_from([A, A2, B, B2]), max_size=6),
)
def test_no_step_ever_gives_two_peers_one_address_and_each_ends_where_it_should(
    wishes: list[tuple[WireGuardKey | None, WireGuardKey | None]], handshakes: list[WireGuardKey]
) -> None:
    observed: ObservedDevice | None = None
    for (first, second), key in zip(wishes, [*handshakes, *[None] * len(wishes)], strict=False):
        wanted = device(successor=first, other=second)
        for step in diff_device(observed, wanted, now_unix_s=NOW):
            observed = device_after(observed, (step,))
            assert observed is not None
            owned = [one for peer in observed.peers for one in peer.allowed_ips]
            assert len(owned) == len(set(owned))
        assert diff_device(observed, wanted, now_unix_s=NOW) == ()
        if observed is not None and key is not None:
            observed = shaken(observed, key)
    if observed is not None:
        for step in diff_device(observed, wanted, now_unix_s=NOW):
            observed = device_after(observed, (step,))
        assert observed is not None
        assert {one for peer in observed.peers for one in peer.allowed_ips} == {
            "10.10.0.2/32",
            "10.10.0.3/32",
        }


def device(
    *,
    key: WireGuardKey = A,
    successor: WireGuardKey | None = None,
    other: WireGuardKey | None = None,
    keepalive_s: int = 25,
) -> DesiredDevice:
    peers = (
        DesiredPeer(
            public_key=key,
            allowed_ips=("10.10.0.2/32",),
            endpoint="192.0.2.2:51820",
            keepalive_s=keepalive_s,
            successor=successor,
        ),
        DesiredPeer(
            public_key=B,
            allowed_ips=("10.10.0.3/32",),
            endpoint="192.0.2.3:51820",
            keepalive_s=keepalive_s,
            successor=other,
        ),
    )
    return DesiredDevice(
        interface="wg0",
        private_key=MINE.secret,
        public_key=MINE.public,
        listen_port=51820,
        mtu=1420,
        addresses=("10.10.0.1/24",),
        peers=tuple(sorted(peers, key=lambda peer: peer.public_key)),
    )


def holding(wanted: DesiredDevice) -> ObservedDevice:
    after = device_after(None, diff_device(None, wanted, now_unix_s=NOW))
    assert after is not None
    return after


def shaken(observed: ObservedDevice, key: WireGuardKey) -> ObservedDevice:
    """Returns the interface after a handshake with a peer."""
    peers = tuple(
        dataclasses.replace(peer, latest_handshake_unix_s=int(NOW)) if peer.public_key == key else peer
        for peer in observed.peers
    )
    return dataclasses.replace(observed, peers=peers)
