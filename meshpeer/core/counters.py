"""How often what happened: one plain map per node, which machines count into and ``/metrics`` reads.

A bound that nobody can see being reached is a guess. So every named limit, and every event that a protocol's
cost or health is judged by, has a member of ``Counter`` here, and whoever enforces the limit counts there.
Counts only ever rise; what goes up and down (members, links) is read from the machines themselves. No locks,
no clock, no names of others: a node's core runs on one thread, and a scraper derives rates.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

Direction = Literal["in", "out"]


class Counter(enum.StrEnum):
    """What is counted; ``meaning`` has one line for each, which is its help text, too."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Counter:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Links
    FRAMES_IN = "frames_in", "Frames received on control links"
    FRAMES_OUT = "frames_out", "Frames handed to control links"
    FRAMES_REFUSED = "frames_refused", "Frames that could not be read: too large, malformed or out of place"
    QUEUE_OVERFLOWS = "queue_overflows", "Frames dropped because the link's outbound queue was full"
    LINKS_OPENED = "links_opened", "Links that came up"
    LINKS_LOST = "links_lost", "Links that ended without being asked to"
    LINKS_REFUSED = "links_refused", "Inbound links closed because there were as many as there may be"
    DIALS = "dials", "Connections tried"
    DIALS_FAILED = "dials_failed", "Connections tried in vain"
    HANDSHAKES_REFUSED = "handshakes_refused", "Handshakes cut because too many were under way"
    HANDSHAKES_FAILED = (
        "handshakes_failed",
        "Handshakes that ended in nothing: strangers, scanners, and whoever is too slow",
    )
    LINKS_REVOKED = "links_revoked", "Greetings of revoked nodes, or on revoked invites, that were refused"
    LINKS_STALLED = "links_stalled", "Links closed because the peer read nothing for a while"
    HEALING_DIALS = "healing_dials", "Dials of members held dead, to heal a partition"
    SEED_DIALS = "seed_dials", "Dials of seeds, to heal a partition"
    LINKS_REPLACED = "links_replaced", "Random links exchanged for another, which keeps the overlay mixed"

    # Records
    RECORDS_ACCEPTED = "records_accepted", "Facts taken into the ledger"
    RECORDS_KNOWN = "records_known", "Facts received that were held already"
    RECORDS_REFUSED = "records_refused", "Facts refused by a rule, whatever it was"
    RECORDS_FUTURE = "records_future", "Facts refused because their time or incarnation lies ahead"
    RECORDS_EXPIRED = "records_expired", "Facts refused because their time to live had passed"
    RECORDS_RATE_LIMITED = "records_rate_limited", "Facts put off because their link sent too many a second"
    ORIGINS_RATE_LIMITED = "origins_rate_limited", "Facts put off because their origin changed too often"
    ASKS_RATE_LIMITED = "asks_rate_limited", "Questions not answered because their link asked for too much"
    INVITES_FULL = (
        "invites_full",
        "Certificates put off because as many nodes as may stood on their invite, unjudged by any issuer",
    )
    RECORDS_TOO_LARGE = "records_too_large", "Facts refused because they exceeded a record's bytes"
    MEMBERS_OVERFLOW = "members_overflow", "Facts refused because the ledger held as many members as it may"
    SIGNATURES_CHECKED = "signatures_checked", "Signatures verified, the dearest check"
    SIGNATURES_BAD = "signatures_bad", "Signatures that did not hold"
    EQUIVOCATIONS = (
        "equivocations",
        "Members that signed two records of one incarnation and sequence",
    )
    PEERS_BANNED = "peers_banned", "Identities shut out for a while because of what they sent"

    # Revocations
    REVOCATIONS_ACCEPTED = "revocations_accepted", "Revocations taken into the set that this node holds"
    REVOCATIONS_REFUSED = (
        "revocations_refused",
        "Revocations that broke a rule, or whose author may not revoke",
    )

    # Dissemination
    EAGER_PUSHES = "eager_pushes", "Facts pushed along the tree"
    DUPLICATES = "duplicates", "Pushes of facts seen before"
    IHAVES_IN = "ihaves_in", "Announcements of facts received from lazy links"
    IHAVES_OUT = "ihaves_out", "Announcements of facts sent to lazy links"
    IHAVES_DROPPED = "ihaves_dropped", "Announcements dropped because too many were open"
    GRAFTS_IN = "grafts_in", "Requests for a missed fact received, each of which makes its link eager"
    GRAFTS_OUT = "grafts_out", "Requests for a missed fact sent"
    PRUNES_IN = "prunes_in", "Links that peers turned lazy"
    PRUNES_OUT = "prunes_out", "Links turned lazy because they brought what was known"
    SEEN_EVICTED = "seen_evicted", "Message ids forgotten because the cache of seen ones was full"
    RECONCILE_ROUNDS = "reconcile_rounds", "Reconciliations begun with a neighbour"
    RECONCILE_DIFFERENCES = "reconcile_differences", "Members in which a reconciliation found a difference"
    RECONCILE_REFUSED = "reconcile_refused", "Reconciliation messages that broke a bound of theirs"
    RECONCILE_ABANDONED = "reconcile_abandoned", "Reconciliations that ended with their link or their time"
    DIGESTS_FUTURE = "digests_future", "Digests of other members refused because their stamp lies ahead"

    # Failure detection
    PINGS_SENT = "pings_sent", "Pings sent on links"
    PINGS_FAILED = "pings_failed", "Pings that were not answered in time"
    HELP_ASKED = "help_asked", "Helpers asked to reach a member in doubt"
    HELP_GIVEN = "help_given", "Members in doubt tried on behalf of another"
    HELP_REFUSED = "help_refused", "Requests to help that were turned down because too many were open"
    NACKS_IN = "nacks_in", "Helpers' reports that they could not reach a member either"
    NACKS_MISSED = "nacks_missed", "Helpers that said nothing at all, which counts against local health"
    SUSPICIONS_SENT = "suspicions_sent", "Suspicions that this node signed"
    SUSPICIONS_COUNTED = "suspicions_counted", "Suspicions of entitled observers taken into account"
    SUSPICIONS_REFUSED = (
        "suspicions_refused",
        "Suspicions that were stale, or of observers not entitled",
    )
    REFUTATIONS = "refutations", "Suspicions of this very node that it refuted by a newer record"
    OPINIONS_SUSPECT = "opinions_suspect", "Members that this node came to suspect"
    OPINIONS_DEAD = "opinions_dead", "Members that this node came to hold dead"
    OPINIONS_REVIVED = "opinions_revived", "Members held suspect or dead that proved to live"

    # Dial-backs
    DIAL_BACKS = "dial_backs", "Members whose control endpoints were dialled because they asked for it"
    DIAL_BACKS_REFUSED = "dial_backs_refused", "Such requests turned down: too many, or too soon"

    # Probes from WireGuard's own port
    PATH_PROBES = "path_probes", "Probes of paths that this node sent from WireGuard's own port"
    PATH_PROBES_REFUSED = (
        "path_probes_refused",
        "Probes of paths that were no member's, not new, or too many a second",
    )
    # Carried links
    CIRCUITS_CARRIED = "circuits_carried", "Links of others that this node began to carry"
    CIRCUITS_REFUSED = "circuits_refused", "Requests to carry or take a link that were turned down"
    CIRCUIT_BYTES = "circuit_bytes", "Bytes of carried links that this node passed on"

    # Relays
    RELAYS_USED = "relays_used", "Relays taken into use by tunnels of this node"
    RELAY_HOPS = "relay_hops", "Tunnels of this node that went from one relay to another under their sessions"
    RELAYS_GRANTED = "relays_granted", "Pairs that were lent two ports of this relay"
    RELAYS_REFUSED = (
        "relays_refused",
        "Requests for ports of this relay that were turned down",
    )
    RELAY_DROPS = "relay_drops", "Packets to lent ports that did not cross"

    # Services
    CALLBACKS_KEPT = "callbacks_kept", "Call-backs of services that were answered 200"
    CALLBACKS_REFUSED = (
        "callbacks_refused",
        "Call-backs that nobody waited for, that were forged, or that could not be read",
    )


class Counters:
    """The counts of one node since it started; all zero where nothing happened."""

    __slots__ = ("_bytes", "_counts", "_frames")

    def __init__(self) -> None:
        # Only what happened is stored: a simulation holds ten thousand of these.
        self._counts: dict[Counter, int] = {}
        self._frames: dict[tuple[Direction, str], int] = {}
        self._bytes: dict[tuple[Direction, str], int] = {}

    def add(self, counter: Counter, by: int = 1) -> None:
        """Counts ``by`` more (0 or above)."""
        self._counts[counter] = self._counts.get(counter, 0) + by

    def add_kind(self, direction: Direction, kind: str, frame_bytes: int) -> None:
        """Counts one frame under its kind and among all frames.

        ``kind`` is the type of a message that this node could read, never text of a peer's choice: whoever
        chose it could fill this map.
        """
        key = (direction, kind)
        self._frames[key] = self._frames.get(key, 0) + 1
        self._bytes[key] = self._bytes.get(key, 0) + frame_bytes
        self.add(Counter.FRAMES_IN if direction == "in" else Counter.FRAMES_OUT)

    def get(self, counter: Counter) -> int:
        """Returns how often that happened."""
        return self._counts.get(counter, 0)

    def by_kind(self) -> Iterator[tuple[Direction, str, int, int]]:
        """Yields direction, kind, frames and their bytes for every kind seen, in a settled order."""
        for key in sorted(self._frames):
            yield (*key, self._frames[key], self._bytes[key])

    @property
    def counted(self) -> Mapping[Counter, int]:
        """What happened at least once."""
        return MappingProxyType(self._counts)
