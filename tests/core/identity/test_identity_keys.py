from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.identity.keys import (
    SigningKey,
    WireGuardPrivateKey,
    decode_key_file,
    encode_key_file,
    verify_signature,
)
from meshpeer.core.ids import MeshId, wireguard_key_text

MESH = MeshId(b"m" * 16)
RECORD, JOB = b"meshpeer/record/v1", b"meshpeer/job/v1"
SEED = bytes(range(32))


def test_the_first_test_vector_of_rfc_8032_holds() -> None:
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_the_test_vector_of_rfc_7748_holds() -> None:
    key = WireGuardPrivateKey(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    assert key.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


@given(seed=st.binary(min_size=32, max_size=32))
@settings(max_examples=30, deadline=None)
def test_wireguard_keys_are_clamped_as_wg_does(seed: bytes) -> None:
    secret = WireGuardPrivateKey(seed).secret
    assert secret[0] & 7 == 0
    assert secret[31] & 192 == 64
    assert WireGuardPrivateKey(secret).secret == secret
    other = X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert WireGuardPrivateKey(seed).public == other


@given(body=st.binary(max_size=100))
@settings(max_examples=30, deadline=None)
def test_a_signature_verifies_in_both_libraries(body: bytes) -> None:
    key = SigningKey(SEED)
    signature = key.sign(RECORD, MESH, body)
    assert verify_signature(key.public, RECORD, MESH, body, signature)
    Ed25519PublicKey.from_public_bytes(key.public).verify(signature, RECORD + b"\0" + MESH + body)


def test_a_signature_means_nothing_elsewhere() -> None:
    key, other = SigningKey(SEED), SigningKey(b"o" * 32)
    signature = key.sign(RECORD, MESH, b"body")
    assert not verify_signature(key.public, JOB, MESH, b"body", signature)
    assert not verify_signature(key.public, RECORD, MeshId(b"n" * 16), b"body", signature)
    assert not verify_signature(key.public, RECORD, MESH, b"bodY", signature)
    assert not verify_signature(other.public, RECORD, MESH, b"body", signature)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, b"body")


@given(public=st.binary(max_size=40), signature=st.binary(max_size=70))
@settings(max_examples=60, deadline=None)
def test_rubbish_does_not_verify_and_does_not_raise(public: bytes, signature: bytes) -> None:
    assert not verify_signature(public, RECORD, MESH, b"body", signature)


def test_a_key_of_small_order_verifies_nothing() -> None:
    neutral = bytes([1]) + bytes(31)
    assert not verify_signature(neutral, RECORD, MESH, b"any", neutral + bytes(32))


@pytest.mark.parametrize("make", [SigningKey, WireGuardPrivateKey])
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(make: type[SigningKey] | type[WireGuardPrivateKey], length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        make(bytes(length))


@pytest.mark.parametrize("key", [SigningKey(SEED), WireGuardPrivateKey(SEED)])
def test_no_repr_shows_a_secret(key: SigningKey | WireGuardPrivateKey) -> None:
    shown = f"{key!r} {key} {[key]}"
    assert SEED.hex()[:8] not in shown
    assert base64.b64encode(SEED).decode()[:8] not in shown
    assert key.public.hex()[:16] in shown


def test_a_key_file_is_two_lines_of_text() -> None:
    text = encode_key_file("node", SEED)
    assert text == "meshpeer key v1 node\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    assert decode_key_file(text, "node", "node.key") == SEED


def test_a_wireguard_key_file_holds_what_wg_takes() -> None:
    key = WireGuardPrivateKey(SEED)
    line = encode_key_file("wireguard", key.secret).splitlines()[1]
    assert base64.b64decode(line) == key.secret
    assert wireguard_key_text(key.public) == base64.b64encode(key.public).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "meshpeer key v1 node",
        "meshpeer key v1 node\n",
        "meshpeer key v1 node\nAAAA\n",
        "meshpeer key v1 node\nnot base64\n",
        "meshpeer key v1 node\n\u00e9\u00e9\u00e9\u00e9\n",
        "meshpeer key v1 node AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "meshpeer key v1 wireguard\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "meshpeer key v2 node\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "meshpeer key v1 node\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" * 2,
    ],
)
def test_what_is_no_such_key_file_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        decode_key_file(text, "node", "/state/node.key")
    assert caught.value.what.startswith("/state/node.key ")
    assert "AAECAw" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    assert "backup" in caught.value.hint
