"""Signatures of webhooks, as the Standard Webhooks specification has them (standardwebhooks.com, "Signature
scheme", symmetric): HMAC-SHA256 over ``id.timestamp.body``, in three headers.

    webhook-id         what is the same each time that one message is sent, without a full stop
    webhook-timestamp  seconds since the Unix epoch, of this sending
    webhook-signature  v1,BASE64 and more of the kind, separated by spaces

A secret is written ``whsec_BASE64`` and has 24 to 64 bytes. The first of several signs, each of them is
believed, so that a secret can be changed without a moment in which nothing is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

WINDOW_S = 300
"""How far the timestamp of a message may be from the reader's clock, either way."""
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
SIGNATURES_MAX = 16
"""Signatures of one message that are looked at."""
PREFIX = "whsec_"
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,256}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


def read_secret(text: str) -> bytes | None:
    """Returns the key of a secret as it is written; None for what is none."""
    body = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX else None


def signature_of(key: bytes, message: str, unix_s: int, body: bytes) -> str:
    """Returns the value of ``webhook-signature`` by one key."""
    signed = f"{message}.{unix_s}.".encode("ascii") + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def sign(keys: Sequence[bytes], message: str, unix_s: int, body: bytes) -> dict[str, str]:
    """Returns the headers of a message; without a key they have no signature."""
    headers = {ID: message, TIMESTAMP: str(unix_s)}
    return {**headers, SIGNATURE: signature_of(keys[0], message, unix_s, body)} if keys else headers


def forgery(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, unix_s: float) -> str:
    """Returns why a message is not to be believed, or nothing for one that is signed by one of the keys and
    of now; ``headers`` by their names in lower case."""
    message, written, said = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not _ID.fullmatch(message) or not _SECONDS.fullmatch(written) or not said:
        return f"it lacks a proper {ID}, {TIMESTAMP} or {SIGNATURE}"
    if abs(unix_s - int(written)) > WINDOW_S:
        return f"its {TIMESTAMP} is more than {WINDOW_S // 60} minutes from this node's clock"
    given = [one.encode("utf-8", "replace") for one in said.split(" ")[:SIGNATURES_MAX]]
    wanted = [signature_of(key, message, int(written), body).encode("ascii") for key in keys]
    # All are compared: how long it takes tells nothing of which was near.
    right = [hmac.compare_digest(one, other) for one in wanted for other in given]
    return "" if any(right) else f"its {SIGNATURE} is wrong"
