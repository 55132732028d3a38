"""Every kind of message that a control link carries; only ``node`` knows them all."""

from __future__ import annotations

from meshpeer.core.antientropy import messages as antientropy
from meshpeer.core.membership import messages as membership
from meshpeer.core.membership import plumtree_messages as plumtree
from meshpeer.core.node import handover
from meshpeer.core.node import messages as own_messages
from meshpeer.core.node.rotation import KeyTurns
from meshpeer.core.paths.direct_trial import TrialMeant
from meshpeer.core.paths.relay_messages import RELAY_FRAMES
from meshpeer.core.scheduler import messages as jobs
from meshpeer.core.wire.frames import Channel, Codec

CODEC = Codec(
    Channel.CONTROL,
    (
        *membership.FRAMES,
        *plumtree.FRAMES,
        *antientropy.FRAMES,
        *own_messages.FRAMES,
        *handover.FRAMES,
        *RELAY_FRAMES,
        TrialMeant,
        KeyTurns,
        *jobs.FRAMES,
    ),
)
