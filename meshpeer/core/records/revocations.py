"""The set of revocations of one mesh: it only grows, and is the same on every node whatever the order of
arrival.

Which of its revocations count is derived from the whole set. A root's always do. An admin's do unless the
admin itself is shut out by somebody senior: a root, or an admin that was admitted earlier. So a stolen admin
key can be answered (whoever is senior to it voids all that it ever signed, whatever dates it puts on that),
two admins that revoke each other end alike on every node, and nobody junior undoes what a senior has signed.

The set is bounded by keeping, of too many, those lowest in one total order, which is again the same on every
node: first by the author's rank, so that no junior pushes out what a senior said.

A root that followed another may retire that one, and is senior to it: what stands on a retired root counts
for nothing, revocations among it, so the one who retires it signs anew what is to stay.
"""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Sequence

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.chains import VerifiedIdentity
from meshpeer.core.ids import Digest, MeshId, NodeId
from meshpeer.core.records.judge import Judge
from meshpeer.core.records.revocation import (
    ISSUER,
    NODE,
    ROOT,
    Chain,
    Order,
    Revocation,
    digest_of,
    read_revocation,
    subjects_of,
)

REVOCATIONS_MAX = 4_096
REVOCATIONS_PER_AUTHOR_MAX = 1_024
FINGERPRINT_BYTES = 16


class Revocations:
    """Merges revocations; iteration is in their one order."""

    def __init__(
        self,
        mesh: MeshId,
        roots: Sequence[bytes],
        judge: Judge,
        *,
        most: int = REVOCATIONS_MAX,
        most_per_author: int = REVOCATIONS_PER_AUTHOR_MAX,
    ) -> None:
        self._mesh = mesh
        self.roots = tuple(roots)
        """Their line, retired ones among them; ``reread`` where it is another one than before."""
        self._judge = judge
        self._most = most
        self._most_per_author = most_per_author
        self._ordered: list[Revocation] = []
        self._by_author: dict[bytes, list[Revocation]] = {}
        self._by_key: dict[tuple[str, bytes, bytes], Revocation] = {}
        self._digests: set[Digest] = set()
        self._settled = True
        """What follows from the set is in step with it; a set that is read from disk settles once."""
        self._covers: dict[tuple[str, bytes], list[Revocation]] = {}
        self._void: tuple[Revocation, ...] = ()
        self._fingerprint = _fingerprint(())

    def copy(self) -> Revocations:
        """Returns a set that holds the same and goes its own way from here."""
        made = copy.copy(self)
        made._ordered, made._by_key = list(self._ordered), dict(self._by_key)
        made._by_author = {author: list(ones) for author, ones in self._by_author.items()}
        made._digests = set(self._digests)
        return made

    # --- reading --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._ordered)

    def __iter__(self) -> Iterator[Revocation]:
        return iter(tuple(self._ordered))

    @property
    def fingerprint(self) -> bytes:
        """16 bytes, equal where two nodes hold the same revocations."""
        self._settle()
        return self._fingerprint

    @property
    def void(self) -> tuple[Revocation, ...]:
        """Returns those that do not count, since their author is shut out itself."""
        self._settle()
        return self._void

    @property
    def counting(self) -> list[Revocation]:
        """Returns those that count, in order, one for each subject."""
        self._settle()
        return sorted((ones[0] for ones in self._covers.values()), key=_order)

    def of_node(self, node: NodeId) -> Revocation | None:
        """Returns what shuts a key out whatever certificate it shows."""
        return self.of(NODE, node)

    def of(self, what: str, subject: bytes) -> Revocation | None:
        """Returns the first revocation of a node, invite or issuer that counts."""
        self._settle()
        found = self._covers.get((what, subject))
        return found[0] if found else None

    def of_issuer(self, key: bytes, root: bytes) -> Revocation | None:
        """Returns what ended an issuer, by the ids of its key and of the root that signed it: a revocation of
        either."""
        return self.of(ISSUER, key) or self.of(ROOT, root)

    def cover(self, who: VerifiedIdentity) -> Revocation | None:
        """Returns the first revocation that shuts out whoever a chain proves; None for who is not."""
        self._settle()
        found = (
            one for subject in subjects_of(who) for one in self._covers.get(subject, ()) if one.covers(who)
        )
        return next(found, None)

    def voided_by(self, one: Revocation) -> list[Revocation]:
        """Returns what would count no more if this one were in the set, too."""
        before = {held.digest for held in self.void}
        after, _ = _judge_all(sorted((*self._ordered, one), key=_order))
        return [held for held in after if held.digest not in before and held.digest != one.digest]

    # --- merging --------------------------------------------------------------------------------------------

    def knows(self, data: bytes, chain: Chain) -> bool:
        """Says whether exactly this is held; costs two hashes."""
        return digest_of(data, chain) in self._digests

    def read(self, data: bytes, chain: Chain, *, proven: bool = True) -> Revocation:
        """Judges a revocation and changes nothing; raises ``PeerFault``. One that is only planned is not
        ``proven``: nobody has signed it yet, and it must not be merged."""
        return read_revocation(
            data, chain, mesh=self._mesh, roots=self.roots, judge=self._judge, proven=proven
        )

    def reread(self) -> list[Revocation]:
        """Judges all of them anew below other roots; returns those that went."""
        held, gone = list(self._ordered), list[Revocation]()
        for one in held:
            self._remove(one)
        for one in held:
            try:
                self.merge(self.read(one.envelope, one.chain))
            except PeerFault:
                gone.append(one)
        return gone

    def merge(self, one: Revocation) -> tuple[bool, list[Revocation]]:
        """Takes a revocation that was read; says whether it is held now and was not, and what went for it.

        Of two that one author signed of one subject the lower in order stays."""
        if one.digest in self._digests:
            return False, []
        gone: list[Revocation] = []
        held = self._by_key.get(one.key)
        if held is not None:
            if held.order <= one.order:
                return False, []
            self._remove(held)
            gone.append(held)
        mine = self._by_author.setdefault(one.record.author, [])
        for ordered in (self._ordered, mine):
            insort(ordered, one, key=_order)
        self._by_key[one.key] = one
        self._digests.add(one.digest)
        excess = mine[self._most_per_author :] or self._ordered[self._most :]
        for last in excess:
            self._remove(last)
            gone.append(last)
        if one.digest not in self._digests:
            return False, [each for each in gone if each.digest != one.digest]
        self._settled = False
        return True, gone

    def _remove(self, one: Revocation) -> None:
        for ordered in (self._ordered, self._by_author[one.record.author]):
            del ordered[bisect_left(ordered, one.order, key=_order)]
        del self._by_key[one.key]
        self._digests.discard(one.digest)
        self._settled = False

    def _settle(self) -> None:
        if self._settled:
            return
        self._settled = True
        void, self._covers = _judge_all(self._ordered)
        self._void = tuple(void)
        self._fingerprint = _fingerprint([one.digest for one in self._ordered])


def _order(one: Revocation) -> Order:
    return one.order


def _judge_all(
    ordered: Sequence[Revocation],
) -> tuple[list[Revocation], dict[tuple[str, bytes], list[Revocation]]]:
    """Returns which count for nothing, and by subject those that do. One pass from the most senior author
    down: whoever may void an author was judged before it."""
    covers: dict[tuple[str, bytes], list[Revocation]] = {}
    void: list[Revocation] = []
    for one in ordered:
        if _is_struck(one, covers):
            void.append(one)
        else:
            covers.setdefault((one.record.what, one.record.subject), []).append(one)
    return void, covers


def _is_struck(one: Revocation, covers: dict[tuple[str, bytes], list[Revocation]]) -> bool:
    return any(
        senior.rank < one.rank and (one.identity is None or senior.covers(one.identity))
        for subject in one.stands_on
        for senior in covers.get(subject, ())
    )


def _fingerprint(digests: Collection[bytes]) -> bytes:
    return hashlib.sha256(b"".join(sorted(digests))).digest()[:FINGERPRINT_BYTES]
