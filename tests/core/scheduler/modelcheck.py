"""A model checker: all that can happen to a few replicas of one job within a budget, with the real machines.

A state is what each node has (its disk, and its leader where it has one), every message that was ever sent,
and what was told. Messages are never taken away, so each may come late, twice, in any order, or not at all. A
node may suspect its leader at any moment, start again, or lose its disk. Search is breadth first: a violation
comes with a shortest story.

What a node makes of an event depends on that node alone, so it is worked out once and looked up from then on.
"""

from __future__ import annotations

import collections
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from meshpeer.core.effects import TicketCounter
from meshpeer.core.ids import JobId, NodeId
from meshpeer.core.scheduler.consensus.acceptor import Acceptor
from meshpeer.core.scheduler.consensus.leader import WRITE_LEASE_S, Leader
from meshpeer.core.scheduler.consensus.messages import (
    Accept,
    Accepted,
    ConsensusEffect,
    ConsensusFrame,
    Denied,
    Elected,
    Keep,
    Prepare,
    Promise,
    Say,
)
from meshpeer.core.scheduler.consensus.values import Ballot, Key, Membership, Replica, Row, Vote, Written

JOB = JobId("jaaaaaaaaaaaaaaaaaaa")
CANCELLED = b"cancelled"
WALK_LENGTH_MAX = 400


@dataclass(frozen=True)
class Rules:
    """The machines under test, and what a disk's end does to a replica's name."""

    acceptor: type[Acceptor] = Acceptor
    leader: type[Leader] = Leader
    wiped_is_another: bool = True
    new_life_new_ballot: bool = True


@dataclass(frozen=True)
class Budget:
    """What may happen, and how often."""

    nodes: int = 3
    voters: int = 3
    campaigns: int = 1
    """How often somebody raises a ballot; the founder has the first without."""
    candidates: tuple[int, ...] = (0, 1, 2)
    restarts: int = 0
    wipes: int = 0
    changes: tuple[tuple[int, ...], ...] = ()
    """The memberships that leaders may change to, one after the other."""
    goes_back: bool = False
    """A leader that was alone may take back the change that it began."""
    cancels: bool = False
    """A leader may write that the task was cancelled, instead of a result."""
    drafts: bool = False
    """A leader may note an attempt that failed before a result comes."""
    lapses: int = 0
    """How often a whole lease may pass."""
    tasks: int = 1
    own_words_wait: bool = False
    """What a node says to itself may come late, too."""
    states_max: int = 3_000_000


@dataclass
class Node:
    """What one node has: what is on its disk, and what it would lose."""

    acceptor: Acceptor
    leader: Leader | None = None
    disk: tuple[Vote, tuple[Written, ...]] = (Vote(), ())


Event = tuple[int, tuple[object, ...]]
"""At which node, and what."""
Told = tuple[tuple[Key, bytes, Ballot], ...]


@dataclass(frozen=True)
class Step:
    """What an event makes of a node."""

    after: int
    sent: int
    """A bit for each message."""
    told: Told
    elected: tuple[Ballot, dict[Key, bytes]] | None
    beats: tuple[tuple[Ballot, int], ...]


class State(NamedTuple):
    """Everything at one moment."""

    nodes: tuple[int, ...]
    sent: int = 0
    """A bit for each message."""
    told: int = 0
    """What was told, by its number."""
    campaigns: int = 0
    restarts: int = 0
    wipes: int = 0
    clock: int = 0
    heard: tuple[tuple[int, Ballot, Replica, int], ...] = ()
    """In which lease each leader's words were sent that replicas have answered; counted here, by itself."""
    beats: tuple[tuple[Ballot, int, int], ...] = ()


@dataclass
class Result:
    """What a search has found."""

    states: int
    violation: str = ""
    story: list[str] = field(default_factory=list)
    whole: bool = True
    told: set[tuple[Key, bytes]] = field(default_factory=set)


class Checker:
    """One search."""

    def __init__(self, budget: Budget, rules: Rules | None = None) -> None:
        self.budget = budget
        self.rules = rules or Rules()
        self._nodes: list[Node] = []
        self._numbers: dict[object, int] = {}
        self._messages: list[tuple[int, int, ConsensusFrame]] = []
        self._message_numbers: dict[tuple[int, int, ConsensusFrame], int] = {}
        self._to: list[int] = [0] * budget.nodes
        """The messages to each node, as bits."""
        self._steps: dict[tuple[object, ...], tuple[Step, ...]] = {}
        self._idle: dict[tuple[int, int], int] = {}
        """The messages that mean nothing to a node as it is."""
        self._told: list[Told] = [()]
        self._told_numbers: dict[Told, int] = {(): 0}
        self._tickets = TicketCounter()

    # --- search -------------------------------------------------------------------------------------------

    def run(self) -> Result:
        first = self._first()
        seen: dict[State, tuple[State, Event] | None] = {first: None}
        queue = collections.deque([first])
        told: set[tuple[Key, bytes]] = set()
        while queue:
            state = queue.popleft()
            for name, after, trouble in self._after(state):
                if trouble:
                    story = [*_story(seen, state), name]
                    return Result(len(seen), trouble, [self._name(*one) for one in story])
                if after in seen:
                    continue
                seen[after] = (state, name)
                queue.append(after)
                if after.told != state.told:
                    told.update((key, value) for key, value, _ in self._told[after.told])
            if len(seen) > self.budget.states_max:
                return Result(len(seen), whole=False, told=told)
        return Result(len(seen), told=told)

    def walk(self, seed: int, steps: int) -> Result:
        """Goes one random way, again and again, instead of all ways: deeper, and sure of nothing."""
        dice, first, taken = random.Random(seed), self._first(), 0
        while taken < steps:
            state, story = first, list[Event]()
            while len(story) < WALK_LENGTH_MAX:
                events = list(self._events(state))
                if not events:
                    break
                place, event = dice.choice(events)
                step = dice.choice(self._step(place, state.nodes[place], event, state.clock))
                event, state, trouble = self._join(state, place, step, event)
                story.append(event)
                taken += 1
                if trouble:
                    return Result(taken, trouble, [self._name(*one) for one in story])
        return Result(taken)

    def _events(self, state: State) -> Iterator[Event]:
        """Yields what may happen next and means something."""
        for place, number in enumerate(state.nodes):
            todo = state.sent & self._to[place] & ~self._idle.get((place, number), 0)
            while todo:
                bit = todo & -todo
                todo ^= bit
                index = bit.bit_length() - 1
                steps = self._step(place, number, ("deliver", index), state.clock)
                if len(steps) == 1 and steps[0].after == number and not steps[0].sent & ~state.sent:
                    if not steps[0].sent:
                        self._idle[place, number] = self._idle.get((place, number), 0) | bit
                    continue
                yield place, ("deliver", index)
            yield from ((place, event) for event in self._choices(place, number, state))

    def _first(self) -> State:
        voters = tuple(replica(one) for one in range(self.budget.voters))
        ballot = Ballot(1, replica(0))
        membership = Membership(1, voters)
        numbers: list[int] = []
        sent = 0
        for one in range(self.budget.nodes):
            voting = one < self.budget.voters
            vote = Vote(generation=1, promised=ballot, membership=membership, told_by=ballot)
            node = self._fresh(replica(one), (vote, ()) if voting else (Vote(), ()))
            if one == 0:
                node.leader = self.rules.leader(
                    job=JOB, generation=1, ballot=ballot, membership=membership, told_by=ballot
                )
                step = self._finish(0, node, node.leader.found(0.0))
                sent |= step.sent
                numbers.append(step.after)
            else:
                numbers.append(self._number(node))
        return State(nodes=tuple(numbers), sent=sent, beats=((ballot, 1, 0),) if self.budget.lapses else ())

    def _after(self, state: State) -> Iterator[tuple[Event, State, str]]:
        """Yields all that may come next: its name, the state, and what is wrong with it."""
        clock, lapses = state.clock, self.budget.lapses
        for place, number in enumerate(state.nodes):
            idle = self._idle.get((place, number), 0)
            todo = state.sent & self._to[place] & ~idle
            while todo:
                bit = todo & -todo
                todo ^= bit
                index = bit.bit_length() - 1
                steps = self._step(place, number, ("deliver", index), clock)
                if not lapses and len(steps) == 1 and steps[0].after == number and not steps[0].sent:
                    idle |= bit
                    self._idle[place, number] = idle
                    continue
                for step in steps:
                    heard = self._hear(state, place, index) if lapses else state.heard
                    if step.after == number and not step.sent & ~state.sent and heard == state.heard:
                        continue
                    yield self._join(state, place, step, ("deliver", index), heard=heard)
            for event in self._choices(place, number, state):
                for step in self._step(place, number, event, clock):
                    yield self._join(state, place, step, event)
        if state.clock < self.budget.lapses:
            after = state._replace(clock=state.clock + 1)
            yield (-1, ("a lease passes",)), after, self._wrong_grant(after)

    def _choices(self, place: int, number: int, state: State) -> Iterator[tuple[object, ...]]:
        budget, node = self.budget, self._nodes[number]
        leader = node.leader
        fenced = leader is None or leader.ballot < node.acceptor.vote.promised
        if fenced and place in budget.candidates and state.campaigns < budget.campaigns:
            yield ("campaign",)
        if leader is not None and leader.is_leading:
            for task in range(budget.tasks):
                if budget.drafts and (task, 1) not in leader.rows:
                    yield ("propose", task, b"draft", False)
                if leader.may_write((task, 1)):
                    result = b"result%d" % leader.ballot.counter + b"'" * state.restarts
                    yield ("propose", task, result, True)
                    if budget.cancels:
                        yield ("propose", task, CANCELLED, True)
            if budget.goes_back and leader.may_go_back:
                yield ("go back",)
            if not leader.is_changing:
                for members in budget.changes[leader.membership.number // 2 :][:1]:
                    yield ("change", *members)
            if budget.lapses and len(leader._beats) <= state.clock:
                yield ("beat",)
        if state.restarts < budget.restarts and leader is not None:
            yield ("restart",)
        if state.wipes < budget.wipes:
            yield ("wipe",)

    # --- one node -----------------------------------------------------------------------------------------

    def _step(self, place: int, number: int, event: tuple[object, ...], clock: int) -> tuple[Step, ...]:
        key = (place, number, event, clock)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = tuple(self._work_out(place, number, event, clock))
        return steps

    def _work_out(self, place: int, number: int, event: tuple[object, ...], clock: int) -> Iterator[Step]:
        now_s = clock * (WRITE_LEASE_S + 1.0)
        before = self._nodes[number]
        if event[0] in ("restart", "wipe"):
            disk, me = before.disk, before.acceptor.me
            if event[0] == "wipe":
                disk = (Vote(), ())
                me = Replica(me.node, me.store + b"*") if self.rules.wiped_is_another else me
            yield self._finish(place, self._fresh(me, disk), [])
            return
        node = copy.deepcopy(before)
        unsealed, torn = self._perform(node, self._handle(node, event, now_s), now_s)
        yield self._finish(place, node, unsealed)
        if torn:
            # The machine stops before its disk has what it was told to write.
            lost = self._fresh(before.acceptor.me, before.disk)
            yield self._finish(place, lost, torn)

    def _handle(self, node: Node, event: tuple[object, ...], now_s: float) -> list[ConsensusEffect]:
        match event:
            case ("deliver", int(index)):
                sender, _, message = self._messages[index]
                return self._receive(node, NodeId(bytes([sender])), message, now_s)
            case ("campaign",):
                vote = node.acceptor.vote
                ballot = Ballot(vote.promised.counter + 1, node.acceptor.me)
                if vote.promised.replica == node.acceptor.me and not self.rules.new_life_new_ballot:
                    ballot = vote.promised
                node.leader = self.rules.leader(
                    job=JOB,
                    generation=1,
                    ballot=ballot,
                    membership=vote.membership,
                    told_by=vote.told_by,
                )
                return node.leader.start()
            case ("propose", int(task), bytes(value), bool(decided)):
                assert node.leader is not None
                return node.leader.propose([Row(task, 1, decided, value)])
            case ("change", *members):
                assert node.leader is not None
                return node.leader.change(tuple(replica(one) for one in members if isinstance(one, int)))
            case ("go back",):
                assert node.leader is not None
                return node.leader.go_back()
            case ("beat",):
                assert node.leader is not None
                return node.leader.beat(now_s)
        raise AssertionError(event)

    def _receive(
        self, node: Node, peer: NodeId, message: ConsensusFrame, now_s: float
    ) -> list[ConsensusEffect]:
        match message:
            case Prepare():
                return node.acceptor.on_prepare(peer, message)
            case Accept():
                return node.acceptor.on_accept(peer, message)
            case Promise():
                return node.leader.on_promise(peer, message, now_s) if node.leader else []
            case Accepted():
                return node.leader.on_accepted(peer, message) if node.leader else []
            case Denied():
                return node.leader.on_denied(peer, message) if node.leader else []

    def _perform(
        self, node: Node, effects: list[ConsensusEffect], now_s: float
    ) -> tuple[list[ConsensusEffect], list[ConsensusEffect]]:
        """Writes to disk and hands a node its own words; returns what leaves, and, where something leaves
        without a write that it should wait for, what had left before that write."""
        leaving: list[ConsensusEffect] = []
        early: list[ConsensusEffect] = []
        todo = collections.deque(effects)
        written = False
        while todo:
            effect = todo.popleft()
            match effect:
                case Keep(vote=vote, rows=rows, gone=gone):
                    held = {row.key: row for row in node.disk[1] if row.key not in gone}
                    held.update((row.key, row) for row in rows)
                    node.disk = (vote, tuple(row for _, row in sorted(held.items())))
                    written = True
                case Say(to=to, message=message, after=after):
                    if to == node.acceptor.me.node and not self.budget.own_words_wait:
                        todo.extend(self._receive(node, to, message, now_s))
                        continue
                    leaving.append(effect)
                    if after is None:
                        early.append(effect)
                case _:
                    leaving.append(effect)
        return leaving, early if written else []

    def _fresh(self, me: Replica, disk: tuple[Vote, tuple[Written, ...]]) -> Node:
        acceptor = self.rules.acceptor(job=JOB, me=me, tickets=self._tickets, vote=disk[0], rows=disk[1])
        return Node(acceptor=acceptor, disk=disk)

    def _finish(self, place: int, node: Node, effects: list[ConsensusEffect]) -> Step:
        sent, elected, beats = 0, None, []
        for effect in effects:
            match effect:
                case Say(message=Denied()):
                    # A leader that does not hear of it goes on, which is the harder case.
                    continue
                case Say(message=Accept(sequence=0)) if not self.budget.lapses:
                    continue
                case Say(to=to, message=message):
                    sent |= 1 << self._message(place, to[0], message)
                    if isinstance(message, Accept):
                        beats.append((message.ballot, message.beat))
                case Elected(ballot=ballot, rows=rows):
                    elected = (ballot, {row.key: row.value for row in rows if row.decided})
                case _:
                    continue
        told: list[tuple[Key, bytes, Ballot]] = []
        leader = node.leader
        if leader is not None and leader.is_leading:
            told = [
                (key, row.value, leader.ballot)
                for key, row in sorted(leader.rows.items())
                if row.decided and (row.ballot != leader.ballot or row.sequence <= leader.told)
            ]
        return Step(
            after=self._number(node),
            sent=sent,
            told=tuple(told),
            elected=elected,
            beats=tuple(dict.fromkeys(beats)),
        )

    def _number(self, node: Node) -> int:
        key = _frozen(node, () if self.budget.lapses else ("_beat", "_beats", "_began_s", "_heard"))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._nodes)
            self._nodes.append(node)
        return number

    def _message(self, sender: int, to: int, message: ConsensusFrame) -> int:
        key = (sender, to, message)
        number = self._message_numbers.get(key)
        if number is None:
            number = self._message_numbers[key] = len(self._messages)
            self._messages.append(key)
            if to < len(self._to):
                self._to[to] |= 1 << number
        return number

    # --- all nodes ----------------------------------------------------------------------------------------

    def _join(
        self,
        state: State,
        place: int,
        step: Step,
        event: tuple[object, ...],
        *,
        heard: tuple[tuple[int, Ballot, Replica, int], ...] | None = None,
    ) -> tuple[Event, State, str]:
        nodes = (*state.nodes[:place], step.after, *state.nodes[place + 1 :])
        told, trouble = state.told, ""
        if step.told or step.elected is not None:
            everything, trouble = _tell(self._told[told], step)
            told = self._told_numbers.setdefault(everything, len(self._told))
            if told == len(self._told):
                self._told.append(everything)
        beats = state.beats
        if self.budget.lapses and step.beats:
            known = {(ballot, beat) for ballot, beat, _ in beats}
            beats = (*beats, *((*one, state.clock) for one in step.beats if one not in known))
        after = State(
            nodes=nodes,
            sent=state.sent | step.sent,
            told=told,
            campaigns=state.campaigns + (event[0] == "campaign"),
            restarts=state.restarts + (event[0] == "restart"),
            wipes=state.wipes + (event[0] == "wipe"),
            clock=state.clock,
            heard=state.heard if heard is None else heard,
            beats=beats,
        )
        if self.budget.lapses and not trouble:
            trouble = self._wrong_grant(after)
        return (place, event), after, trouble

    def _hear(self, state: State, place: int, index: int) -> tuple[tuple[int, Ballot, Replica, int], ...]:
        """Notes in which lease the word was sent that a leader has an answer to."""
        _, _, message = self._messages[index]
        leader = self._nodes[state.nodes[place]].leader
        if not isinstance(message, Accepted) or leader is None or leader.ballot != message.ballot:
            return state.heard
        clocks = [at for ballot, beat, at in state.beats if (ballot, beat) == (message.ballot, message.beat)]
        entry = (place, message.ballot, message.replica, max(clocks, default=-1))
        return state.heard if entry in state.heard else tuple(sorted((*state.heard, entry)))

    def _wrong_grant(self, state: State) -> str:
        """Says where a leader would grant although no quorum spoke to it within this lease."""
        now_s = state.clock * (WRITE_LEASE_S + 1.0)
        for place, number in enumerate(state.nodes):
            leader = self._nodes[number].leader
            if leader is None or not leader.may_grant(now_s):
                continue
            me = self._nodes[number].acceptor.me
            recent = {me} | {
                one
                for node, ballot, one, at in state.heard
                if (node, ballot, at) == (place, leader.ballot, state.clock)
            }
            if not leader.membership.is_quorum(recent):
                return f"node {place} grants, and heard of {len(recent)} replicas within this lease"
        return ""

    def _name(self, place: int, event: tuple[object, ...]) -> str:
        if event[0] == "deliver" and isinstance(event[1], int):
            sender, _, message = self._messages[event[1]]
            return f"{sender} -> {place}: {message}"
        return f"node {place}: {' '.join(map(str, event))}"


def replica(place: int) -> Replica:
    return Replica(NodeId(bytes([place])), b"s")


def _tell(told: Told, step: Step) -> tuple[Told, str]:
    """Adds what a leader tells; says where it contradicts what was told before, or has lost it."""
    known = {key: (value, ballot) for key, value, ballot in told}
    if step.elected is not None:
        ballot, rows = step.elected
        for key, (value, by) in known.items():
            if by < ballot and rows.get(key) != value:
                return told, f"the leader of ballot {ballot.counter} does not know {value!r} of {key}"
    fresh: list[tuple[Key, bytes, Ballot]] = []
    for key, value, ballot in step.told:
        if key not in known:
            fresh.append((key, value, ballot))
        elif known[key][0] != value:
            return told, f"two results of {key} are acknowledged: {known[key][0]!r} and {value!r}"
    return (tuple(sorted((*told, *fresh))) if fresh else told), ""


def _frozen(value: object, left_out: tuple[str, ...] = ()) -> object:
    """Returns what a node is, as something to look up."""
    if isinstance(value, Node):
        leader = value.leader
        mind = (
            tuple(_frozen(one) for name, one in sorted(vars(leader).items()) if name not in left_out)
            if leader
            else None
        )
        vote, rows = value.acceptor.vote, tuple(sorted(value.acceptor.rows.items()))
        return (value.acceptor.me, vote, rows, value.disk, mind)
    if isinstance(value, dict):
        return tuple(sorted((key, _frozen(one)) for key, one in value.items()))
    if isinstance(value, list):
        return tuple(_frozen(one) for one in value)
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(value))
    if hasattr(value, "__slots__") and not hasattr(value, "__struct_fields__"):
        return tuple(_frozen(getattr(value, name)) for name in value.__slots__)
    return value


def _story(seen: dict[State, tuple[State, Event] | None], state: State) -> list[Event]:
    story: list[Event] = []
    step = seen[state]
    while step is not None:
        state, name = step
        story.append(name)
        step = seen[state]
    return story[::-1]
