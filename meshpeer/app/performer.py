"""Performs the node's effects: hands each to the part of the agent that does it, once what it waits for is on
disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from meshpeer.app.next_key import drop_next_key, keep_next_key
from meshpeer.app.state import keep_issuer_key, save_chain
from meshpeer.core.effects import AskEcho, Note, Persist
from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import Ticket, key_text
from meshpeer.core.membership.dialbacks import DialBack, DialBackHeard
from meshpeer.core.membership.messages import CloseLink, Dial, WeWereRefused
from meshpeer.core.node.handover import IssuerKeyKept, IssuerKeyLost, IssuerKeyShown, KeepIssuerKey
from meshpeer.core.node.messages import (
    AnswerEchoes,
    ApplyDevice,
    DeliverToSelf,
    FarewellOver,
    FirstSyncDone,
    Forward,
    LookAtDevice,
    MembersChanged,
    SelfMessage,
    SendFrame,
    ShowChain,
    TrustRoots,
)
from meshpeer.core.node.rotation import DropKey, KeepKey
from meshpeer.core.paths.probe_desk import SendProbe
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    MoveEndpoint,
    OpenRelay,
    RekeyRelay,
    WakeRelay,
)
from meshpeer.core.scheduler.messages import (
    FetchJob,
    JobChanged,
    JobForgotten,
    StartAttempt,
    StopAttempt,
    StoreBlob,
)
from meshpeer.core.scheduler.replica_messages import FetchReplica
from meshpeer.core.scheduler.webhook_messages import (
    AnswerCallback,
    CallWebhook,
    DeliverMessage,
    EndWebhook,
    ResumeWebhook,
)
from meshpeer.runtime.dialbacks import dial_back
from meshpeer.runtime.ports import CommitFailed
from meshpeer.runtime.releases import Releases, Verdict

if TYPE_CHECKING:
    from meshpeer.app.agent import Agent


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for the journal."""

    go_on: Callable[[], None]
    give_up: Callable[[], None]


class Performer:
    """The hands of one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.releases: Releases[Waiting] = Releases()

    def perform(self, effect: object) -> None:
        """Performs one effect of the node; never blocks."""
        match effect:
            case SendFrame():
                self.once_written(effect.after, lambda: self._agent.keeper.send(effect))
            case DeliverToSelf(message=message, after=after):
                self.once_written(after, lambda: self._agent.driver.post(SelfMessage(message=message)))
            case Persist(ticket=ticket, changes=changes):
                self._agent.store.commit_soon(ticket, changes)
            case StartAttempt():
                self._agent.doer_of(effect).start(effect)
            case JobChanged(job=job):
                self._agent.api.on_job_changed(job)
            case StopAttempt():
                self._agent.attempts.stop(effect)
                self._agent.webhooks.stop(effect)
            case CallWebhook():
                self.once_written(effect.after, lambda: self._agent.webhooks.call(effect))
            case EndWebhook():
                self._agent.webhooks.end(effect)
            case DeliverMessage():
                self.once_written(effect.after, lambda: self._agent.deliveries.send(effect))
            case ResumeWebhook():
                self._agent.webhooks.resume(effect)
            case AnswerCallback():
                hooks = self._agent.webhooks
                self.once_written(effect.after, lambda: hooks.answer(effect), lambda: hooks.give_up(effect))
            case FetchReplica():
                self._agent.replica_fetcher.fetch(effect)
            case FetchJob():
                self._agent.attempts.fetch_job(effect)
            case JobForgotten(job=job, after=after):
                self.once_written(after, lambda: self._agent.spawn(lambda: self._agent.files.forget((job,))))
            case Dial():
                self._agent.keeper.dial(effect)
            case CloseLink():
                self._agent.keeper.close(effect)
            case ApplyDevice(device=device):
                self._agent.reconciler.want(device)
            case LookAtDevice():
                self._agent.reconciler.look_soon()
            case Forward(forwarding=wanted):
                self._agent.forwarder.want(wanted)
            case AnswerEchoes(addresses=addresses):
                self._agent.probing.want(addresses)
            case AskEcho():
                self._agent.probing.ask(effect)
            case SendProbe():
                self._agent.tunnel_port.send(effect)
            case DialBack():
                agent = self._agent
                agent.nursery.start_soon(dial_back, agent.transport, effect, agent.driver.post)
            case DialBackHeard():
                self._agent.api.on_dial_back_heard()
            case OpenRelay() | RekeyRelay() | CloseRelay() | FreezeRelay() | WakeRelay():
                self._agent.relayer.order(effect)
            case MoveEndpoint():
                self._agent.endpoint_moves.order(effect)
            case KeepKey(public_key=key):
                self._agent.driver.post(keep_next_key(self._agent.settings.state_dir, key))
            case DropKey():
                drop_next_key(self._agent.settings.state_dir)
            case ShowChain(chain=chain):
                self._agent.transport.show(chain)
                save_chain(self._agent.settings.state_dir, chain)
            case TrustRoots(roots=roots):
                self._agent.transport.trust(roots)
            case KeepIssuerKey(seed=seed):
                self._keep_issuer_key(seed)
            case IssuerKeyShown():
                self._agent.api.on_issuer_key(effect)
            case MembersChanged():
                self._agent.members_changed.set()
            case FirstSyncDone():
                self._agent.synced.set()
            case FarewellOver():
                self._agent.farewell_over.set()
            case StoreBlob(data=data):
                self._agent.nursery.start_soon(self._store_blob, data)
            case WeWereRefused(peer=peer, reason=reason):
                self._agent.refusals[peer] = reason
                self._agent.log.write(
                    "warning",
                    "a member refuses this node",
                    (("peer", key_text(peer)[:10]), ("reason", reason)),
                )
            case Note():
                self.note(effect)
            case _:
                raise AssertionError(f"no performer for {effect!r}")

    def once_written(
        self, ticket: Ticket | None, go_on: Callable[[], None], give_up: Callable[[], None] = lambda: None
    ) -> None:
        """Calls ``go_on`` once the ticket is on disk (at once where it is), ``give_up`` where it never will
        be."""
        match self.releases.hold(ticket, Waiting(go_on, give_up)):
            case Verdict.PERFORM:
                go_on()
            case Verdict.DROPPED:
                give_up()
            case Verdict.HELD:
                return

    async def _store_blob(self, data: bytes) -> None:
        """Keeps what grants name. Where it can't be kept, workers say that they can't have it, and it is
        granted anew."""
        try:
            self._agent.files.keeper.hold_for_a_while((await self._agent.blobs.add_bytes(data)).digest)
        except EnvironmentFault as fault:
            self._agent.log.write("error", fault.what, (("hint", fault.hint),))

    def _keep_issuer_key(self, seed: bytes) -> None:
        """Keeps the key before anybody hears of it; where it can't be kept, nobody does."""
        try:
            keep_issuer_key(self._agent.settings.state_dir, seed)
        except EnvironmentFault as fault:
            self._agent.log.write("error", fault.what, (("hint", fault.hint),))
            self._agent.driver.post(IssuerKeyLost())
        else:
            self._agent.driver.post(IssuerKeyKept(seed=seed))

    def note(self, note: Note) -> None:
        self._agent.log.write(note.level, note.fact, note.fields)

    async def watch_journal(self) -> None:
        """Releases what waited for the disk; a failed write ends the agent, since nothing could be promised
        any more."""
        async for outcome in self._agent.store.outcomes:
            if isinstance(outcome, CommitFailed):
                self._agent.api.fail(outcome.error)
                for waiting in self.releases.failed(outcome.tickets):
                    waiting.give_up()
                self._agent.log.write(
                    "error",
                    "the journal can't be written: the agent stops, tunnels stay",
                    (("reason", outcome.error.what),),
                )
                await trio.sleep(0.5)
                raise outcome.error
            for waiting in self.releases.committed(outcome.tickets):
                waiting.go_on()
