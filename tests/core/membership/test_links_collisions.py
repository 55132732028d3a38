"""Two ends, any timing: of all links that a pair opens, both keep one, and the same one, and a question asked
where the links say so is answered on it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.deadline import Instant
from meshpeer.core.ids import LinkId, MeshId, NodeId
from meshpeer.core.membership.links import LinkEffect, Links
from meshpeer.core.membership.messages import (
    CloseLink,
    Hello,
    LinkClosed,
    LinkOpened,
    PeerDown,
    PeerUp,
    SendOnLink,
)

MESH = MeshId(b"m" * 16)
LOW, HIGH = NodeId(bytes(32)), NodeId(b"\xff" * 32)
QUIET_S = 60.0

OPENINGS = st.lists(
    st.tuples(st.booleans(), st.floats(0, 9), st.floats(0.001, 0.8), st.floats(0.001, 0.8)),
    min_size=1,
    max_size=6,
)
"""Who dials, when, and how long the link's frames take each way."""


@given(openings=OPENINGS)
@settings(max_examples=300, deadline=None)
def test_both_ends_keep_one_and_the_same_link(openings: list[tuple[bool, float, float, float]]) -> None:
    pair = Pair()
    for low_dials, at_s, there_s, back_s in openings:
        pair.open(low_dials=low_dials, at_s=at_s, there_s=there_s, back_s=back_s)
    pair.run(QUIET_S)
    for end in pair.ends:
        end.links.check()
        assert [end.links.link_to(peer) for peer in end.links.peers] == pair.wires_open
    assert len(pair.wires_open) == 1


@given(openings=OPENINGS)
@settings(max_examples=300, deadline=None)
def test_a_question_of_who_dialled_or_changed_links_is_answered(
    openings: list[tuple[bool, float, float, float]],
) -> None:
    """A joiner asked on a link that the other end had in use no more, and was answered on one that it had
    closed itself: it waited 10 s for the next round of reconciliation, one join in five."""
    pair = Pair()
    for low_dials, at_s, there_s, back_s in openings:
        pair.open(low_dials=low_dials, at_s=at_s, there_s=there_s, back_s=back_s)
    pair.run(QUIET_S)
    assert any(end.answered for end in pair.ends)


# --- a wire pair in virtual time ----------------------------------------------------------------------------


@dataclass
class End:
    me: NodeId
    links: Links
    open: set[LinkId] = field(default_factory=set)
    answered: bool = False


class Half:
    def random(self) -> float:
        return 0.5


class Pair:
    """Delivers hellos and closes in order per link and direction; links are named alike on both ends."""

    def __init__(self) -> None:
        self.ends = [End(me, make_links(me)) for me in (LOW, HIGH)]
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now_s = 0.0
        self._delays: dict[LinkId, tuple[float, float]] = {}
        self._numbers = itertools.count(1)

    @property
    def wires_open(self) -> list[LinkId]:
        return sorted(self.ends[0].open | self.ends[1].open)

    def open(self, *, low_dials: bool, at_s: float, there_s: float, back_s: float) -> None:
        number = LinkId(next(self._numbers))
        self._delays[number] = (there_s, back_s)
        dialler = 0 if low_dials else 1
        # TLS 1.3: the client is done first, the server half a round trip later.
        self._at(at_s, lambda: self._opened(dialler, number, "192.0.2.1:51821"))
        self._at(at_s + self._delays[number][dialler], lambda: self._opened(1 - dialler, number, ""))

    def run(self, seconds: float) -> None:
        while True:
            for end in self.ends:
                self._perform(end, end.links.tick(Instant(self._now_s, self._now_s)))
            wakes = [deadline.at_s for end in self.ends if (deadline := end.links.next_deadline())]
            due = min([*wakes, *([self._heap[0][0]] if self._heap else [])], default=seconds)
            if due >= seconds:
                return
            self._now_s = max(self._now_s, due)
            while self._heap and self._heap[0][0] <= self._now_s:
                heapq.heappop(self._heap)[2]()

    def _opened(self, side: int, number: LinkId, dialled: str) -> None:
        end, peer = self.ends[side], self.ends[1 - side].me
        end.open.add(number)
        event = LinkOpened(link=number, peer=peer, leaf=peer, remote="192.0.2.1:40000", dialled=dialled)
        self._perform(end, end.links.on_opened(event, Instant(self._now_s, self._now_s)))

    def _perform(self, end: End, effects: Sequence[LinkEffect]) -> None:
        for effect in effects:
            match effect:
                case SendOnLink(link=link, message=Hello() as hello):
                    self._to_other(
                        end, link, lambda other, link=link, hello=hello: self._hello(other, link, hello)
                    )
                case CloseLink(link=link):
                    end.open.discard(link)
                    self._to_other(end, link, lambda other, link=link: self._closed(other, link))
                case PeerUp(link=link, dialled=dialled, replaces=replaces):
                    if dialled or replaces:
                        self._to_other(end, link, lambda other, link=link: self._asked(other, link))
                case PeerDown():
                    pass
                case _:
                    raise AssertionError(f"nothing else was to happen: {effect}")

    def _to_other(self, end: End, link: LinkId, act: Callable[[End], None]) -> None:
        side = self.ends.index(end)
        self._at(self._now_s + self._delays[link][side], lambda: act(self.ends[1 - side]))

    def _hello(self, end: End, link: LinkId, hello: Hello) -> None:
        if link in end.open:
            _, effects = end.links.on_message(link, hello, Instant(self._now_s, self._now_s))
            self._perform(end, effects)

    def _closed(self, end: End, link: LinkId) -> None:
        if link in end.open:
            end.open.discard(link)
            event = LinkClosed(link=link, reason="closed there")
            self._perform(end, end.links.on_closed(event, Instant(self._now_s, self._now_s)))

    def _asked(self, end: End, link: LinkId) -> None:
        """What comes on a spare is read; answers go on the link in use."""
        peer = end.links.peer_of(link) if link in end.open else None
        in_use = end.links.link_to(peer) if peer is not None else None
        if in_use is not None:
            self._to_other(end, in_use, lambda other: self._answered(other, in_use))

    def _answered(self, end: End, link: LinkId) -> None:
        end.answered = end.answered or (link in end.open and end.links.peer_of(link) is not None)

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), action))


def make_links(me: NodeId) -> Links:
    return Links(
        me=me,
        mesh=MESH,
        chain=(bytes(me),),
        control_port=51821,
        admit=lambda chain, now: NodeId(chain[0]),
        jitter=Half(),
    )
