"""Issuers that a root signs anew, as whole simulated meshes hear of them."""

from __future__ import annotations

from meshpeer.core.identity.certificates import SERIAL_BYTES, certify_issuer, make_root, public_key_of
from meshpeer.core.identity.keys import SigningKey
from meshpeer.core.node.messages import RevocationSigned, SignersMade
from meshpeer.core.node.rows import SIGNER_PREFIX
from meshpeer.core.records import envelope
from meshpeer.core.records.kinds import RevocationRecord
from meshpeer.core.records.ledger import Ledger
from meshpeer.sim.host import Host
from meshpeer.sim.world import World


def test_an_issuer_that_a_greeting_showed_is_kept_and_outlives_its_old_root() -> None:
    world = World(7)
    founder = world.found("alpha", topology="full")
    world.run(0.5)
    hosts = [founder, *(world.join(f"n{number}", founder) for number in range(1, 4))]
    assert world.run_until(lambda: all(len(ledger_of(one).ids) == 4 for one in hosts), within_s=20)
    world.run(5)
    away = hosts[3]
    world.crash(away)
    second = make_root(
        world.entropy(32), now_unix_s=world.unix_s(), serial=world.entropy(SERIAL_BYTES), above=world.root
    )
    anew = certify_issuer(
        second,
        public_key_of(world.issuer.certificate),
        holder=founder.id,
        now_unix_s=world.unix_s(),
        serial=world.entropy(SERIAL_BYTES),
    )
    world.post(founder, SignersMade(certificates=(second.certificate, anew)))
    world.run(5)
    world.start(away)
    world.run(10)
    kept = [value for (_, key), value in away.disk.items() if key.startswith(SIGNER_PREFIX)]
    assert sorted(kept) == sorted((second.certificate, anew))

    retirement = RevocationRecord(
        what="root",
        subject=world.root.id,
        author=SigningKey(second.seed).public,
        issued_at=world.unix_s(),
        since=0,
        reason="",
        name="",
    )
    signed = envelope.sign(SigningKey(second.seed), world.mesh, retirement)
    world.post(founder, RevocationSigned(envelope=signed, chain=()))
    world.run(5)
    assert ledger_of(away).retired == 1
    world.crash(away)
    world.start(away)
    assert ledger_of(away).ids == ledger_of(founder).ids


def ledger_of(host: Host) -> Ledger:
    assert host.node is not None
    return host.node.ledger
