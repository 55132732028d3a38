"""Links by their rules: whom a node greets, whom it refuses, which of two links stays, and when it dials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from meshpeer.core.deadline import Deadline, Instant
from meshpeer.core.effects import Note
from meshpeer.core.errors import PeerFault
from meshpeer.core.ids import LinkId, MeshId, NodeId, key_text
from meshpeer.core.membership.links import (
    ANOTHER_IN_USE,
    BACKOFF_ALONE_S,
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    CHOICE_SETTLES_S,
    HELLO_TIMEOUT_S,
    HIGHER_ID_WAITS_S,
    LINKS_ENOUGH_TO_WAIT,
    SEED_REDIAL_S,
    SEEDS_APART_S,
    SETTLED_S,
    SIMULTANEOUS_S,
    SPARE_MAX_S,
    LinkEffect,
    Links,
)
from meshpeer.core.membership.messages import (
    ENOUGH_LINKS,
    PROTOCOL_VERSIONS,
    CloseLink,
    Dial,
    DialFailed,
    Hello,
    LinkClosed,
    LinkOpened,
    PeerDown,
    PeerUp,
    Ping,
    Refusal,
    SendOnLink,
    WeWereRefused,
)

MESH = MeshId(b"m" * 16)
LOW, ME, HIGH = (NodeId(bytes([byte]) * 32) for byte in (1, 5, 9))
REMOTE, SEED, OTHER_SEED = "192.0.2.9:40000", "192.0.2.1:51821", "[2001:db8::1]:51821"
EPOCH_S = 1_800_000_000
JITTER_MOST = 1.0 - 2**-53


class Dice:
    """Jitter at one end of its range."""

    def __init__(self, value: float = JITTER_MOST) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.fixture
def links() -> Iterator[Links]:
    made = make_links()
    yield made
    made.check()


# --- greeting -----------------------------------------------------------------------------------------------


def test_open_link_is_greeted_with_all_that_the_peer_needs(links: Links) -> None:
    assert links.on_opened(opened(1, HIGH, dialled=SEED), at(2.5)) == [
        SendOnLink(
            link=LinkId(1),
            message=Hello(
                versions=PROTOCOL_VERSIONS,
                mesh=MESH,
                chain=chain_of(ME),
                clock_ms=EPOCH_S * 1000 + 2_500,
                observed=REMOTE,
                control_port=51821,
            ),
        )
    ]


def test_greeted_link_is_in_use(links: Links) -> None:
    links.on_opened(opened(1, HIGH, dialled=SEED), at(0))
    assert greet(links, 1, HIGH, at(1)) == [
        PeerUp(peer=HIGH, link=LinkId(1), remote=REMOTE, dialled=True, observed_me="198.51.100.5:4000")
    ]
    assert (links.peers, links.link_to(HIGH), links.peer_of(LinkId(1))) == ([HIGH], 1, HIGH)
    assert links.remote_of(HIGH) == REMOTE


def test_frames_before_the_greeting_are_not_read(links: Links) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    assert links.on_message(LinkId(1), Ping(number=1), at(0)) == (None, [])
    greet(links, 1, HIGH, at(0))
    assert links.on_message(LinkId(1), Ping(number=1), at(0)) == (HIGH, [])
    assert links.on_message(LinkId(2), Ping(number=1), at(0)) == (None, [])


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"versions": (2, 3)}, "this node speaks protocol 1, you speak [2, 3]"),
        ({"versions": ()}, "this node speaks protocol 1, you speak []"),
        ({"mesh": MeshId(b"n" * 16)}, "this node belongs to another mesh"),
        ({"chain": ()}, "the greeting's certificate is not the handshake's"),
        ({"chain": (b"leaf of " + LOW, b"issuer")}, "the greeting's certificate is not the handshake's"),
        ({"chain": (b"leaf of " + HIGH, b"foreign")}, "certificate is signed by a stranger"),
        ({"chain": (b"leaf of " + HIGH, b"mixed up")}, "the greeting's certificate is another node's"),
    ],
)
def test_greeting_that_breaks_a_rule_is_refused_with_its_reason(
    links: Links, hello: dict[str, object], reason: str
) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    assert greet(links, 1, HIGH, at(1), **hello) == refusal_of(1, HIGH, reason, at(1))
    assert links.peers == []
    assert links.on_message(LinkId(1), Ping(number=1), at(1)) == (None, [])


def test_second_greeting_on_one_link_is_refused(links: Links) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    greet(links, 1, HIGH, at(0))
    reason = "a second greeting on one link"
    assert greet(links, 1, HIGH, at(1)) == [
        *refusal_of(1, HIGH, reason, at(1)),
        PeerDown(peer=HIGH, reason=reason),
    ]


def test_a_later_version_that_still_speaks_ours_is_welcome(links: Links) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    assert isinstance(greet(links, 1, HIGH, at(0), versions=(1, 2, 3))[0], PeerUp)


def test_link_to_itself_is_closed_and_its_address_not_dialled_again(links: Links) -> None:
    links.seed(SEED, at(0))
    assert links.tick(at(0)) == [Dial(target=None, addresses=(SEED,))]
    reason = "the address is this node's own"
    assert links.on_opened(opened(1, ME, dialled=SEED), at(0)) == [CloseLink(link=LinkId(1), reason=reason)]
    assert links.on_opened(opened(2, ME), at(0)) == [CloseLink(link=LinkId(2), reason=reason)]
    assert links.next_deadline() is None
    assert links.tick(at(1_000)) == []


def test_peer_that_does_not_greet_is_closed_in_time(links: Links) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    deadline = links.next_deadline()
    assert deadline is not None
    assert (deadline.at_s, deadline.reason) == (HELLO_TIMEOUT_S, "a greeting is due")
    assert links.tick(at(HELLO_TIMEOUT_S - 0.001)) == []
    assert links.tick(at(HELLO_TIMEOUT_S)) == [CloseLink(link=LinkId(1), reason="the peer did not greet")]


def test_refusal_is_told_and_ends_the_link(links: Links) -> None:
    links.on_opened(opened(1, HIGH), at(0))
    _, effects = links.on_message(LinkId(1), Refusal(reason="revoked", clock_ms=0), at(0))
    assert effects == [
        WeWereRefused(peer=HIGH, reason="revoked"),
        CloseLink(link=LinkId(1), reason="refused: revoked"),
    ]


def test_fault_closes_the_link_and_says_why(links: Links) -> None:
    up(links, 1, HIGH, at(0))
    assert links.on_fault(LinkId(1), "digest is not sorted", at(1)) == [
        *refusal_of(1, HIGH, "digest is not sorted", at(1)),
        PeerDown(peer=HIGH, reason="digest is not sorted"),
    ]
    assert links.on_fault(LinkId(1), "again", at(1)) == []


def test_end_of_a_link_is_told_once(links: Links) -> None:
    up(links, 1, HIGH, at(0))
    assert links.on_closed(LinkClosed(link=LinkId(1), reason="reset"), at(1)) == [
        PeerDown(peer=HIGH, reason="reset")
    ]
    assert links.on_closed(LinkClosed(link=LinkId(1), reason="reset"), at(1)) == []


# --- two links of one pair ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mine_first", "gap_s"), [(True, 0.0), (False, 0.0), (True, 1.9), (False, 1.9)])
def test_lower_id_keeps_the_link_that_it_began(links: Links, mine_first: bool, gap_s: float) -> None:
    mine, theirs = (1, 2) if mine_first else (2, 1)
    for number in (1, 2):
        links.on_opened(opened(number, HIGH, dialled=SEED if number == mine else ""), at(gap_s * number))
    effects = [*greet(links, 1, HIGH, at(4)), *greet(links, 2, HIGH, at(4))]
    reason = ANOTHER_IN_USE if mine_first else "a newer link replaces this one"
    assert [one for one in effects if isinstance(one, CloseLink)] == [
        CloseLink(link=LinkId(theirs), reason=reason)
    ]
    assert links.link_to(HIGH) == mine


def test_higher_id_closes_neither_and_reads_both(links: Links) -> None:
    up(links, 1, LOW, at(0), dialled=SEED)
    links.on_opened(opened(2, LOW), at(1))
    assert [type(one) for one in greet(links, 2, LOW, at(1))] == [PeerUp]
    assert links.link_to(LOW) == 2
    assert [links.peer_of(LinkId(number)) for number in (1, 2)] == [LOW, LOW]


def test_spare_takes_over_when_the_peer_closes_the_other(links: Links) -> None:
    up(links, 1, LOW, at(0), dialled=SEED)
    up(links, 2, LOW, at(1))
    effects = links.on_closed(LinkClosed(link=LinkId(2), reason="not this one"), at(2))
    assert [(type(one), getattr(one, "link", None)) for one in effects] == [(PeerUp, 1)]
    assert links.link_to(LOW) == 1
    assert links.on_closed(LinkClosed(link=LinkId(1), reason="gone"), at(3)) == [
        PeerDown(peer=LOW, reason="gone")
    ]


def test_spare_that_nobody_closes_is_closed_in_time(links: Links) -> None:
    up(links, 1, LOW, at(0), dialled=SEED)
    up(links, 2, LOW, at(1))
    deadline = links.next_deadline()
    assert deadline is not None
    assert (deadline.at_s, deadline.reason) == (1 + SPARE_MAX_S, "close a spare link")
    assert links.tick(at(deadline.at_s)) == [CloseLink(link=LinkId(1), reason=ANOTHER_IN_USE)]
    assert links.link_to(LOW) == 2


@pytest.mark.parametrize("peer", [LOW, HIGH])
def test_clearly_newer_link_replaces_the_older_on_both_ends(links: Links, peer: NodeId) -> None:
    up(links, 1, peer, at(0), dialled=SEED if peer > ME else "")
    late = at(2 * SIMULTANEOUS_S + 0.1)
    effects = up(links, 2, peer, late, dialled="" if peer > ME else SEED)
    assert [type(one) for one in effects] == [CloseLink, PeerUp]
    assert effects[0] == CloseLink(link=LinkId(1), reason="a newer link replaces this one")
    assert links.link_to(peer) == 2


# --- dialling -----------------------------------------------------------------------------------------------


def test_lower_id_dials_at_once_and_the_higher_waits(links: Links) -> None:
    links.want({LOW: (SEED,), HIGH: (REMOTE,)}, at(0))
    assert links.tick(at(0)) == [Dial(target=HIGH, addresses=(REMOTE,))]
    assert links.tick(at(HIGHER_ID_WAITS_S - 0.001)) == []
    assert links.tick(at(HIGHER_ID_WAITS_S)) == [Dial(target=LOW, addresses=(SEED,))]
    assert links.next_deadline() is None


def test_member_without_an_address_is_not_dialled(links: Links) -> None:
    links.want({HIGH: ()}, at(0))
    assert links.tick(at(100)) == []
    assert links.next_deadline() is None
    links.want({HIGH: (REMOTE,)}, at(100))
    assert links.tick(at(100 + BACKOFF_FIRST_S)) == [Dial(target=HIGH, addresses=(REMOTE,))]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("jitter", [0.0, JITTER_MOST])
def test_back_off_doubles_between_its_bounds_and_never_ends(jitter: float, alone: bool) -> None:
    """A node without any link dials more often: a mesh of two that was cut needed 18 s to find itself."""
    links, now_s, waits = make_links(jitter), 0.0, []
    if not alone:
        up(links, 1, LOW, at(0))
    links.want({HIGH: (REMOTE,)}, at(now_s))
    for _ in range(40):
        assert links.tick(at(now_s)) == [Dial(target=HIGH, addresses=(REMOTE,))]
        links.on_dial_failed(dial_failed(HIGH), at(now_s))
        deadline = links.next_deadline()
        assert deadline is not None
        assert deadline.reason == "dial"
        assert links.tick(at(deadline.at_s - 0.001)) == []
        waits.append(deadline.at_s - now_s)
        now_s = deadline.at_s
    most_s = BACKOFF_ALONE_S if alone else BACKOFF_MAX_S
    ceilings = [min(most_s, BACKOFF_FIRST_S * 2**number) for number in range(40)]
    assert waits == pytest.approx([ceiling * (0.5 + jitter / 2) for ceiling in ceilings])


def test_settled_link_that_closes_is_dialled_anew_at_once(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    links.tick(at(0))
    up(links, 1, HIGH, at(0), dialled=REMOTE)
    links.on_closed(LinkClosed(link=LinkId(1), reason="reset"), at(SETTLED_S))
    assert links.tick(at(SETTLED_S)) == [Dial(target=HIGH, addresses=(REMOTE,))]


@pytest.mark.parametrize("how", ["refused by us", "refused by it", "closed early", "never greeted", "fault"])
def test_peer_that_we_get_no_further_with_is_not_dialled_in_a_circle(links: Links, how: str) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    links.seed(SEED, at(0))
    now_s, dials = 0.0, 0
    for number in range(1, 2_000):
        deadline = links.next_deadline()
        assert deadline is not None
        now_s = max(now_s, deadline.at_s)
        if now_s >= 600:
            break
        for effect in links.tick(at(now_s)):
            if isinstance(effect, Dial):
                dials += 1
                links.on_opened(opened(2 * number + dials, HIGH, dialled=effect.addresses[0]), at(now_s))
                fail_in_the_way(links, 2 * number + dials, how, now_s)
    assert now_s >= 600
    assert dials < 80


def test_a_link_that_the_peer_has_no_room_for_is_not_dialled_anew_at_once(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    links.tick(at(0))
    up(links, 1, HIGH, at(0), dialled=REMOTE)
    links.on_closed(LinkClosed(link=LinkId(1), reason=ENOUGH_LINKS), at(100))
    assert links.tick(at(100)) == []


def test_changed_addresses_are_tried_soon(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    for number in range(10):
        links.tick(at(100 * number))
        links.on_dial_failed(dial_failed(HIGH), at(100 * number))
    links.want({HIGH: (SEED, REMOTE)}, at(901))
    assert links.tick(at(901 + BACKOFF_FIRST_S)) == [Dial(target=HIGH, addresses=(SEED, REMOTE))]


def test_member_that_left_is_not_dialled(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    links.want({}, at(0))
    assert links.tick(at(100)) == []


def test_no_second_dial_while_the_first_is_under_way(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    assert len(links.tick(at(0))) == 1
    links.on_opened(opened(1, HIGH), at(1))
    assert links.tick(at(HELLO_TIMEOUT_S + 1)) == [CloseLink(link=LinkId(1), reason="the peer did not greet")]
    assert links.next_deadline() is None


def test_seed_is_dialled_again_once_whoever_answered_there_is_gone(links: Links) -> None:
    links.seed(SEED, at(0))
    assert links.tick(at(0)) == [Dial(target=None, addresses=(SEED,))]
    up(links, 1, HIGH, at(0), dialled=SEED)
    assert links.tick(at(10 * SEED_REDIAL_S)) == []
    links.on_closed(LinkClosed(link=LinkId(1), reason="reset"), at(700))
    assert links.tick(at(700 + BACKOFF_FIRST_S)) == [Dial(target=None, addresses=(SEED,))]


def test_seed_that_does_not_answer_is_dialled_for_ever(links: Links) -> None:
    links.seed(SEED, at(0))
    links.seed(SEED, at(0))
    now_s = 0.0
    for _ in range(50):
        assert links.tick(at(now_s)) == [Dial(target=None, addresses=(SEED,))]
        links.on_dial_failed(dial_failed(None), at(now_s))
        deadline = links.next_deadline()
        assert deadline is not None
        assert deadline.at_s - now_s <= BACKOFF_MAX_S
        now_s = deadline.at_s


def test_seeds_are_dialled_one_after_the_other_and_not_beside_whoever_answers(links: Links) -> None:
    """They are mostly one node's addresses. Fifty joiners dialled their founder three times each, at once."""
    for seed in (SEED, OTHER_SEED):
        links.seed(seed, at(0))
    assert links.tick(at(0)) == [Dial(target=None, addresses=(SEED,))]
    assert links.next_deadline() == Deadline(SEEDS_APART_S, "dial")
    assert links.tick(at(SEEDS_APART_S)) == [Dial(target=None, addresses=(OTHER_SEED,))]
    links.on_opened(opened(1, HIGH, dialled=SEED), at(1))
    links.on_dial_failed(dial_failed(None, OTHER_SEED), at(1))
    assert links.tick(at(1 + BACKOFF_FIRST_S)) == []
    greet(links, 1, HIGH, at(2))
    assert links.tick(at(1.9 + SEED_REDIAL_S)) == []
    assert links.tick(at(2 + SEED_REDIAL_S)) == [Dial(target=None, addresses=(OTHER_SEED,))]


def test_a_member_is_not_dialled_while_a_seed_at_its_address_is(links: Links) -> None:
    links.seed(SEED, at(0))
    links.tick(at(0))
    links.want({HIGH: (REMOTE, SEED)}, at(0))
    assert links.tick(at(9)) == []
    links.on_dial_failed(dial_failed(None), at(9))
    assert links.tick(at(9)) == [Dial(target=HIGH, addresses=(REMOTE, SEED))]
    assert links.tick(at(9 + BACKOFF_MAX_S)) == []


def test_who_has_links_lets_its_choice_settle_before_it_dials(links: Links) -> None:
    for number in range(LINKS_ENOUGH_TO_WAIT):
        up(links, number, NodeId(bytes([50 + number]) * 32), at(0))
    links.want({HIGH: (REMOTE,)}, at(0))
    assert links.tick(at(CHOICE_SETTLES_S)) == []
    links.want({}, at(CHOICE_SETTLES_S))
    assert links.tick(at(9)) == []
    links.want({HIGH: (REMOTE,)}, at(9))
    assert links.tick(at(9 + 2 * CHOICE_SETTLES_S)) == [Dial(target=HIGH, addresses=(REMOTE,))]


def test_refusal_of_a_link_in_use_is_no_reason_to_dial_at_once(links: Links) -> None:
    links.want({HIGH: (REMOTE,)}, at(0))
    links.tick(at(0))
    up(links, 1, HIGH, at(0), dialled=REMOTE)
    links.on_message(LinkId(1), Refusal(reason="bad signature", clock_ms=0), at(100))
    deadline = links.next_deadline()
    assert deadline is not None
    assert 100 + BACKOFF_FIRST_S / 2 <= deadline.at_s <= 100 + BACKOFF_FIRST_S


# --- helpers ------------------------------------------------------------------------------------------------


def make_links(jitter: float = JITTER_MOST, me: NodeId = ME) -> Links:
    return Links(me=me, mesh=MESH, chain=chain_of(me), control_port=51821, admit=admit, jitter=Dice(jitter))


def chain_of(node: NodeId) -> tuple[bytes, ...]:
    return (b"leaf of " + node, b"issuer")


def admit(chain: Sequence[bytes], now: Instant) -> NodeId:
    """Stands for the ledger: believes what a leaf says of itself."""
    if chain[-1] == b"foreign":
        raise PeerFault("certificate is signed by a stranger")
    return LOW if chain[-1] == b"mixed up" else NodeId(chain[0].removeprefix(b"leaf of "))


def at(mono_s: float) -> Instant:
    return Instant(mono_s, EPOCH_S + mono_s)


def opened(number: int, peer: NodeId, *, dialled: str = "") -> LinkOpened:
    return LinkOpened(link=LinkId(number), peer=peer, leaf=chain_of(peer)[0], remote=REMOTE, dialled=dialled)


def greet(links: Links, number: int, peer: NodeId, now: Instant, **changes: object) -> list[LinkEffect]:
    fields: dict[str, object] = {
        "versions": PROTOCOL_VERSIONS,
        "mesh": MESH,
        "chain": chain_of(peer),
        "clock_ms": 0,
        "observed": "198.51.100.5:4000",
        "control_port": 51821,
    }
    hello = Hello(**{**fields, **changes})  # type: ignore[arg-type]
    reader, effects = links.on_message(LinkId(number), hello, now)
    assert reader is None
    return effects


def up(links: Links, number: int, peer: NodeId, now: Instant, *, dialled: str = "") -> list[LinkEffect]:
    links.on_opened(opened(number, peer, dialled=dialled), now)
    return greet(links, number, peer, now)


def refusal_of(number: int, peer: NodeId, reason: str, now: Instant) -> list[LinkEffect]:
    return [
        Note(
            level="warning",
            fact="link refused",
            fields=(("peer", key_text(peer)), ("from", REMOTE), ("reason", reason)),
        ),
        SendOnLink(link=LinkId(number), message=Refusal(reason=reason, clock_ms=int(now.unix_s * 1000))),
        CloseLink(link=LinkId(number), reason=reason),
    ]


def dial_failed(target: NodeId | None, seed: str = "") -> DialFailed:
    addresses = (seed or SEED,) if target is None else (REMOTE,)
    return DialFailed(target=target, addresses=addresses, reason="refused", refused=True)


def fail_in_the_way(links: Links, number: int, how: str, now_s: float) -> None:
    match how:
        case "refused by us":
            greet(links, number, HIGH, at(now_s), mesh=MeshId(bytes(16)))
        case "refused by it":
            links.on_message(LinkId(number), Refusal(reason="no", clock_ms=0), at(now_s))
        case "closed early":
            greet(links, number, HIGH, at(now_s))
            links.on_closed(LinkClosed(link=LinkId(number), reason="reset"), at(now_s + 0.01))
        case "fault":
            greet(links, number, HIGH, at(now_s))
            links.on_fault(LinkId(number), "rubbish", at(now_s + 0.01))
        case _:
            pass
