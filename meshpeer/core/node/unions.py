"""The closed unions of everything that can happen to a node, and everything it can want."""

from __future__ import annotations

from meshpeer.core.effects import LagMeasured, Note, Persist, Persisted, Tick
from meshpeer.core.membership.dialbacks import DialBack, DialBackHeard, DialBacksWanted, DialledBack
from meshpeer.core.membership.messages import (
    CloseLink,
    Dial,
    DialFailed,
    LinkClosed,
    LinkOpened,
    WeWereRefused,
)
from meshpeer.core.node.messages import (
    AnswerEchoes,
    ApplyDevice,
    CharterSigned,
    DeliverToSelf,
    DeviceObserved,
    EchoAsked,
    EchoHeard,
    EndpointsChanged,
    FarewellOver,
    FirstSyncDone,
    Forward,
    ForwardingFailed,
    FrameReceived,
    LeaveAsked,
    MembersChanged,
    RenameAsked,
    RevocationSigned,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    Started,
)
from meshpeer.core.scheduler import messages as jobs
from meshpeer.core.topology.hub_probes import AskEcho

NodeEvent = (
    Started
    | Tick
    | LagMeasured
    | Persisted
    | LinkOpened
    | LinkClosed
    | DialFailed
    | FrameReceived
    | SeedFound
    | EndpointsChanged
    | DeviceObserved
    | SelfMessage
    | LeaveAsked
    | ForwardingFailed
    | CharterSigned
    | RevocationSigned
    | RenameAsked
    | EchoAsked
    | EchoHeard
    | DialBacksWanted
    | DialledBack
    | jobs.SchedulerEvent
)
NodeEffect = (
    SendFrame
    | DeliverToSelf
    | Dial
    | CloseLink
    | Persist
    | ApplyDevice
    | Forward
    | AnswerEchoes
    | AskEcho
    | DialBack
    | DialBackHeard
    | ShowChain
    | MembersChanged
    | FirstSyncDone
    | FarewellOver
    | WeWereRefused
    | Note
    | jobs.SchedulerEffect
)
