"""Measures what trust costs on this machine: ``python tests/core/identity/measure_trust.py``.

Sizes of certificates and of an invite's text; medians of a whole mutual TLS 1.3 handshake in memory (both
ends in this process, contexts made before), of judging a chain, and of verifying a signature.
"""

from __future__ import annotations

import os
import ssl
import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshpeer.core.identity.admission import issue_durable
from meshpeer.core.identity.certificates import (
    Authority,
    constraints_of,
    make_invite,
    make_issuer,
    make_provisional_leaf,
    make_root,
)
from meshpeer.core.identity.chains import verify_chain
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.identity.invites import Invite, decode_invite, encode_invite
from meshpeer.core.identity.keys import SigningKey, verify_signature

NOW = 1_800_000_000
SEEDS = ("203.0.113.7:51821", "[2001:db8::17]:51821", "seed.example.org:51821")


def main() -> None:
    root = make_root(os.urandom(32), now_unix_s=NOW, serial=os.urandom(8))
    issuer = make_issuer(root, os.urandom(32), holder=os.urandom(32), now_unix_s=NOW, serial=os.urandom(8))
    invite = make_default_invite(issuer)
    node = SigningKey(os.urandom(32))
    leaf = make_provisional_leaf(invite, node.public, now_unix_s=NOW, serial=os.urandom(8))
    chain, roots = (leaf, invite.certificate, issuer.certificate), (root.certificate,)
    mesh = constraints_of(root.certificate).mesh
    identity = verify_chain(chain, roots, mesh, NOW)
    durable = issue_durable(issuer, identity, now_unix_s=NOW, serial=os.urandom(8))
    text = encode_invite(Invite(authority=invite, issuer=issuer.certificate, roots=roots, seeds=SEEDS))
    body = os.urandom(400)
    signature = node.sign(b"meshpeer/record/v1", mesh, body)
    client, server = (make_context(side, roots, chain, node.seed) for side in ("client", "server"))

    print(f"root {len(root.certificate)} B, issuer {len(issuer.certificate)} B, ", end="")
    print(f"invite {len(invite.certificate)} B, ", end="")
    print(f"provisional leaf {len(leaf)} B, durable leaf {len(durable[0])} B")
    print(f"invite's text with {len(SEEDS)} seeds: {len(text)} characters")
    print(f"the same after a root followed another: {len(rotated_invite(root))} characters")
    print(f"mutual handshake, both ends: {median_ms(lambda: handshake(client, server)):.2f} ms")
    print(f"judge a provisional chain: {median_ms(lambda: verify_chain(chain, roots, mesh, NOW)):.3f} ms")
    print(f"judge a durable chain: {median_ms(lambda: verify_chain(durable, roots, mesh, NOW)):.3f} ms")
    print(f"read and judge an invite: {median_ms(lambda: decode_invite(text, now_unix_s=NOW)):.3f} ms")
    verify = median_ms(lambda: verify_signature(node.public, b"meshpeer/record/v1", mesh, body, signature))
    print(f"verify a record's signature: {verify:.3f} ms")


def make_default_invite(issuer: Authority) -> Authority:
    return make_invite(
        issuer,
        os.urandom(32),
        capabilities=INVITE_DEFAULT,
        roles=("compute",),
        uses=1,
        expires_s=86_400,
        now_unix_s=NOW,
        serial=os.urandom(8),
    )


def rotated_invite(root: Authority) -> str:
    """Returns an invite that carries two roots."""
    second = make_root(os.urandom(32), now_unix_s=NOW, serial=os.urandom(8), above=root)
    issuer = make_issuer(second, os.urandom(32), holder=os.urandom(32), now_unix_s=NOW, serial=os.urandom(8))
    roots = (root.certificate, second.certificate)
    return encode_invite(
        Invite(authority=make_default_invite(issuer), issuer=issuer.certificate, roots=roots, seeds=SEEDS)
    )


def median_ms(run: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(200):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1_000


def make_context(
    side: str, roots: tuple[bytes, ...], chain: tuple[bytes, ...], seed: bytes
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    context.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, roots)))
    key = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file = os.memfd_create("chain", os.MFD_CLOEXEC)
    os.write(file, "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode() + key)
    context.load_cert_chain(f"/proc/self/fd/{file}")
    os.close(file)
    return context


def handshake(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)


if __name__ == "__main__":
    main()
