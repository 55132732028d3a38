"""Who may sign for a mesh: its roots in their line, and its issuers.

Both are certificates that prove themselves, so they are taken from anybody: from greetings, which show the
roots; from chains, which end in an issuer; from whoever tells all that it holds. Of an issuer's key one
certificate counts, the same on every node: below the root that came last, then the one that lasts longest.

A leaf is signed by an issuer's *key*. So it stands below every certificate of that key, and a chain that is
shown with an old one is read with the one that counts (``newest``): a root that follows another signs the
issuers anew, and nobody's leaf changes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from meshpeer.core.errors import PeerFault
from meshpeer.core.identity.certificates import begin_of, constraints_of, end_of, public_key_of
from meshpeer.core.identity.chains import kind_of, verify_issuer
from meshpeer.core.identity.constraints import Kind
from meshpeer.core.identity.line import Line, with_follower
from meshpeer.core.identity.profile import key_id
from meshpeer.core.ids import MeshId

ISSUERS_MAX = 64
"""Issuers of one mesh; each is signed by a root's key, by a person."""
CERTIFICATES_REMEMBERED = 256
"""Certificates of issuers that are known by sight."""

Chain = tuple[bytes, ...]
_Order = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer, by the certificate that counts."""

    certificate: bytes = field(repr=False)
    public: bytes
    holder: bytes
    """The node that keeps its key; empty where an earlier version made it."""
    place: int
    """Of its root in the line."""
    begins_at: int
    ends_at: int

    @property
    def id(self) -> bytes:
        """The key id, 8 bytes: how leaves and revocations name it."""
        return key_id(self.public)

    @property
    def order(self) -> _Order:
        """Orders certificates of one key: the lowest counts, on every node."""
        return (-self.place, -self.ends_at, _digest(self.certificate))


@dataclass(slots=True)
class Taken:
    """What became of certificates that were offered."""

    news: list[bytes] = field(default_factory=list)
    """Those that count now, roots first."""
    gone: list[bytes] = field(default_factory=list)
    """Those that counted before."""
    forked: bool = False
    """A root gave way to another that the same one signed."""
    refused: list[str] = field(default_factory=list)
    """Why others were not taken: they lead to no root of this mesh, or there are too many."""


class Authorities:
    """Roots and issuers of one ledger. Their line only grows, but for a root that was signed twice."""

    def __init__(self, mesh: MeshId, roots: Sequence[bytes]) -> None:
        self._mesh = mesh
        self.line: Line = ()
        self.root_ids: tuple[bytes, ...] = ()
        """The key ids of the roots, in line."""
        self.fingerprint = b""
        """Bytes that are equal where two nodes hold the same; empty for one root and one issuer, which every
        chain shows anyway."""
        self._issuers: dict[bytes, Issuer] = {}
        """By public key."""
        self._keys: dict[bytes, bytes] = {}
        """The keys of issuers' certificates that were judged, those among them that count no more."""
        self._set_line(tuple(roots))

    def copy(self) -> Authorities:
        """Returns authorities that go their own way from here."""
        made = copy.copy(self)
        made._issuers, made._keys = dict(self._issuers), dict(self._keys)
        return made

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def issuers(self) -> list[Issuer]:
        """Returns the issuers in order of their keys."""
        return [self._issuers[public] for public in sorted(self._issuers)]

    def __iter__(self) -> Iterator[bytes]:
        """Yields all that others may lack: roots that followed another, in line, then issuers."""
        yield from self.line[1:]
        yield from (one.certificate for one in self.issuers)

    def knows(self, certificate: bytes) -> bool:
        """Says whether a certificate was taken, or judged and found older than the one that counts."""
        return certificate in self._keys or certificate in self.line

    def of_key(self, public: bytes) -> Issuer | None:
        return self._issuers.get(public)

    def of_id(self, key: bytes) -> Issuer | None:
        return next((one for one in self.issuers if one.id == key), None)

    def held_by(self, node: bytes) -> Issuer | None:
        """Returns the issuer whose key a node keeps."""
        return next((one for one in self.issuers if one.holder == node), None)

    def newest(self, chain: Sequence[bytes]) -> Chain:
        """Returns a chain with the certificate of its issuer that counts; as it is where none is known."""
        if not chain:
            return ()
        held = self._issuers.get(self._key_of(chain[-1]))
        return tuple(chain) if held is None else (*chain[:-1], held.certificate)

    # --- taking ---------------------------------------------------------------------------------------------

    def take(self, certificates: Iterable[bytes], *, settled: int = 0) -> Taken:
        """Takes roots and issuers that hold, in whatever order they come; ``settled`` roots of the line are
        retired."""
        taken, waiting = Taken(), [one for one in dict.fromkeys(certificates) if not self.knows(one)]
        roots = [one for one in waiting if kind_of(one, self._mesh) is Kind.ROOT]
        while roots:
            left = [one for one in roots if not self._take_root(one, settled, taken)]
            if len(left) == len(roots):
                break
            roots = left
        taken.refused += ["a root is signed by none of this mesh"] * len(roots)
        for one in waiting:
            if kind_of(one, self._mesh) is not Kind.ROOT:
                self._take_issuer(one, taken)
        if taken.news:
            plain = len(self.line) == 1 and len(self._issuers) <= 1
            self.fingerprint = b"" if plain else hashlib.sha256(b"".join(map(_digest, self))).digest()
        return taken

    def _set_line(self, line: Line) -> None:
        self.line, self.root_ids = line, tuple(key_id(public_key_of(root)) for root in line)

    def _take_root(self, certificate: bytes, settled: int, taken: Taken) -> bool:
        """Says whether it need not be tried again."""
        try:
            line = with_follower(self.line, certificate, self._mesh, settled=settled)
        except PeerFault:
            return False
        if line == self.line:
            return True
        gone = [root for root in self.line if root not in line]
        self._set_line(line)
        taken.forked = bool(gone)
        taken.news.append(certificate)
        taken.gone += gone
        if gone:
            # What was older than a certificate that goes may count again.
            self._keys.clear()
        for one in self.issuers if gone else ():
            if one.place >= len(line) - 1:
                del self._issuers[one.public]
                taken.gone.append(one.certificate)
        return True

    def _take_issuer(self, certificate: bytes, taken: Taken) -> None:
        try:
            public, place = verify_issuer(certificate, self.line, self._mesh)
        except PeerFault as fault:
            taken.refused.append(fault.what)
            return
        issuer = Issuer(
            certificate,
            public,
            constraints_of(certificate).holder,
            place,
            begin_of(certificate),
            end_of(certificate),
        )
        held = self._issuers.get(public)
        self._remember(certificate, public)
        if held is None and len(self._issuers) >= ISSUERS_MAX and not self._make_room(public, taken):
            taken.refused.append(f"the mesh has {ISSUERS_MAX} issuers, and takes no more")
            return
        if held is not None and held.order <= issuer.order:
            return
        self._issuers[public] = issuer
        taken.news.append(certificate)
        if held is not None:
            taken.gone.append(held.certificate)

    def _make_room(self, public: bytes, taken: Taken) -> bool:
        """Drops the issuer with the highest key for one with a lower: a key is all that stays of an issuer
        that is signed anew, so every node keeps the same ones in whatever order they come."""
        last = max(self._issuers)
        if public > last:
            return False
        dropped = self._issuers.pop(last).certificate
        if dropped in taken.news:
            taken.news.remove(dropped)
        taken.gone.append(dropped)
        return True

    def _remember(self, certificate: bytes, public: bytes) -> None:
        if len(self._keys) >= CERTIFICATES_REMEMBERED:
            del self._keys[next(iter(self._keys))]
        self._keys[certificate] = public

    def _key_of(self, certificate: bytes) -> bytes:
        known = self._keys.get(certificate)
        if known is not None:
            return known
        try:
            return public_key_of(certificate)
        except ValueError:
            return b""


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()
