"""The closed unions of everything that can happen to a node, and everything it can want."""

from __future__ import annotations

from meshpeer.core.effects import AskEcho, LagMeasured, Note, Persist, Tick
from meshpeer.core.membership.dialbacks import DialBack, DialBackHeard, DialBacksWanted, DialledBack
from meshpeer.core.membership.messages import (
    CloseLink,
    Dial,
    DialFailed,
    LinkClosed,
    LinkOpened,
    WeWereRefused,
)
from meshpeer.core.node.handover import (
    IssuerKeyKept,
    IssuerKeyLost,
    IssuerKeyShown,
    IssuerKeyWanted,
    KeepIssuerKey,
)
from meshpeer.core.node.messages import (
    AnswerEchoes,
    ApplyDevice,
    BulkHeard,
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
    LookAtDevice,
    MembersChanged,
    RenameAsked,
    RevocationSigned,
    SeedFound,
    SelfMessage,
    SendFrame,
    ShowChain,
    SignersMade,
    Started,
    TrustRoots,
)
from meshpeer.core.node.rotation import DropKey, KeepKey, KeyKept, RotationAsked
from meshpeer.core.paths.probe_desk import ProbeHeard, ProbePortOpened, ProbeTooLong, SendProbe
from meshpeer.core.paths.relay_messages import (
    CloseRelay,
    FreezeRelay,
    MoveEndpoint,
    OpenRelay,
    RekeyRelay,
    RelayNews,
    WakeRelay,
)
from meshpeer.core.scheduler import messages as jobs

NodeEvent = (
    Started
    | Tick
    | LagMeasured
    | LinkOpened
    | LinkClosed
    | DialFailed
    | FrameReceived
    | BulkHeard
    | SeedFound
    | EndpointsChanged
    | DeviceObserved
    | SelfMessage
    | LeaveAsked
    | ForwardingFailed
    | CharterSigned
    | RevocationSigned
    | SignersMade
    | IssuerKeyWanted
    | IssuerKeyKept
    | IssuerKeyLost
    | RenameAsked
    | EchoAsked
    | EchoHeard
    | ProbePortOpened
    | ProbeHeard
    | ProbeTooLong
    | DialBacksWanted
    | DialledBack
    | RelayNews
    | RotationAsked
    | KeyKept
    | jobs.SchedulerEvent
)
NodeEffect = (
    SendFrame
    | DeliverToSelf
    | Dial
    | CloseLink
    | Persist
    | ApplyDevice
    | LookAtDevice
    | Forward
    | AnswerEchoes
    | AskEcho
    | SendProbe
    | DialBack
    | DialBackHeard
    | ShowChain
    | TrustRoots
    | KeepIssuerKey
    | IssuerKeyShown
    | MembersChanged
    | FirstSyncDone
    | FarewellOver
    | WeWereRefused
    | Note
    | OpenRelay
    | RekeyRelay
    | CloseRelay
    | FreezeRelay
    | WakeRelay
    | MoveEndpoint
    | KeepKey
    | DropKey
    | jobs.SchedulerEffect
)
