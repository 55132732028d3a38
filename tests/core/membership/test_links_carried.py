"""Links that do not go straight: carried by a member, or through a port that somebody forwards."""

from __future__ import annotations

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import LinkId, MeshId, NodeId
from meshpeer.core.membership.carriers import address_over
from meshpeer.core.membership.links import BACKOFF_FIRST_S, BACKOFF_MAX_S, SETTLED_S, LinkEffect, Links
from meshpeer.core.membership.messages import (
    PROTOCOL_VERSIONS,
    CloseLink,
    Dial,
    DialFailed,
    Hello,
    LinkClosed,
    LinkOpened,
    PeerUp,
    SendOnLink,
)

MESH = MeshId(b"m" * 16)
ME, PEER, CARRIER = (NodeId(bytes([byte]) * 32) for byte in (1, 5, 9))
ADDRESS, FORWARDED = "192.0.2.1:51821", "127.0.0.1:51900"
OVER = address_over(CARRIER, PEER)


def test_carriers_are_asked_only_once_the_members_own_addresses_did_not_answer() -> None:
    links = linking()
    assert links.tick(at(0)) == [Dial(target=PEER, addresses=(ADDRESS,))]
    links.on_dial_failed(failed(), at(4))
    assert links.tick(at(4 + BACKOFF_FIRST_S)) == [Dial(target=PEER, addresses=(ADDRESS, OVER))]


def test_a_carried_link_is_a_link_and_the_straight_one_is_dialled_on() -> None:
    links = linking()
    links.tick(at(0))
    up(links, 1, carrier=CARRIER, dialled=OVER, now=1)
    assert (links.peers, links.carrier_of(PEER), links.remote_of(PEER)) == ([PEER], CARRIER, "")
    dials = links.tick(at(10))
    assert dials == [Dial(target=PEER, addresses=(ADDRESS,))]
    links.on_dial_failed(failed(), at(14))
    due = links.next_deadline()
    assert due is not None
    assert 14 < due.at_s <= 14 + BACKOFF_MAX_S


def test_a_straight_link_takes_the_place_of_a_carried_one_and_is_not_replaced_by_one() -> None:
    links = linking()
    up(links, 1, carrier=CARRIER, dialled=OVER, now=0)
    effects = up(links, 2, carrier=None, dialled=ADDRESS, now=60)
    assert [type(one) for one in effects] == [CloseLink, PeerUp]
    assert (links.link_to(PEER), links.carrier_of(PEER)) == (LinkId(2), None)
    up(links, 3, carrier=CARRIER, dialled="", now=120)
    assert links.link_to(PEER) == LinkId(2)
    assert links.tick(at(200)) == []
    links.check()


def test_when_a_carried_link_ends_carriers_are_asked_at_once() -> None:
    links = linking()
    links.tick(at(0))
    up(links, 1, carrier=CARRIER, dialled=OVER, now=1)
    end = 1 + SETTLED_S + 100
    links.on_closed(LinkClosed(link=LinkId(1), reason="the carrier went"), at(end))
    assert links.tick(at(end + 1)) == [Dial(target=PEER, addresses=(ADDRESS, OVER))]


def test_the_address_of_a_forwarded_link_is_not_the_peers_and_the_peer_hears_so() -> None:
    links = linking()
    effects = links.on_opened(opened(1, dialled=FORWARDED), at(0))
    (greeting,) = [one.message for one in effects if isinstance(one, SendOnLink)]
    assert isinstance(greeting, Hello)
    assert greeting.forwarded
    links.on_message(LinkId(1), hello(), at(0))
    assert (links.is_forwarded(PEER), links.remote_of(PEER)) == (True, "")


def test_who_says_that_it_came_by_a_forwarded_port_has_no_address_here() -> None:
    links = linking()
    links.on_opened(opened(1), at(0))
    links.on_message(LinkId(1), hello(forwarded=True), at(0))
    assert (links.is_forwarded(PEER), links.remote_of(PEER)) == (True, "")


# --- helpers ------------------------------------------------------------------------------------------------


class Dice:
    def random(self) -> float:
        return 1.0 - 2**-53


def linking() -> Links:
    links = Links(
        me=ME,
        mesh=MESH,
        chain=(b"my leaf",),
        control_port=51821,
        admit=lambda chain, now: PEER,
        jitter=Dice(),
        over=lambda node: (OVER,),
        forwarded=(FORWARDED,),
    )
    links.want({PEER: (ADDRESS,)}, at(0))
    return links


def up(links: Links, number: int, *, carrier: NodeId | None, dialled: str, now: float) -> list[LinkEffect]:
    links.on_opened(opened(number, carrier=carrier, dialled=dialled), at(now))
    _, effects = links.on_message(LinkId(number), hello(), at(now))
    return effects


def opened(number: int, *, carrier: NodeId | None = None, dialled: str = "") -> LinkOpened:
    remote = "" if carrier else "127.0.0.1:40000"
    return LinkOpened(
        link=LinkId(number), peer=PEER, leaf=b"leaf", remote=remote, dialled=dialled, carrier=carrier
    )


def hello(*, forwarded: bool = False) -> Hello:
    return Hello(
        versions=PROTOCOL_VERSIONS,
        mesh=MESH,
        chain=(b"leaf",),
        clock_ms=0,
        observed="",
        control_port=51821,
        forwarded=forwarded,
    )


def failed() -> DialFailed:
    return DialFailed(target=PEER, addresses=(ADDRESS,), reason="it does not answer", refused=False)


def at(seconds: float) -> Instant:
    return Instant(seconds, 1_800_000_000.0 + seconds)
