"""Signatures of webhooks: the published vectors, another implementation's verdict, and every forgery."""

from __future__ import annotations

import base64
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from meshpeer.core.wire.webhook_signatures import WINDOW_S, forgery, read_secret, sign, signature_of

NOW_S = 1_731_705_121
BODY = b'{"event_type":"ping","data":{"success":true}}'
KEY = b"k" * 32
OTHER = b"o" * 24


@pytest.mark.parametrize(
    ("secret", "message", "unix_s", "body", "signature"),
    [
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            BODY,
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ],
)
def test_published_vectors_are_met(
    secret: str, message: str, unix_s: int, body: bytes, signature: str
) -> None:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert signature_of(key, message, unix_s, body) == signature
    headers = {"webhook-id": message, "webhook-timestamp": str(unix_s), "webhook-signature": signature}
    assert forgery([key], headers, body, unix_s) == ""


@given(st.binary(min_size=24, max_size=64), st.text(st.characters(codec="utf-8"), max_size=40))
def test_the_reference_library_signs_the_same(key: bytes, text: str) -> None:
    moment = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC)
    assert Webhook(key).sign("m", moment, text) == signature_of(key, "m", NOW_S, text.encode())


def test_what_is_signed_is_believed_within_the_window() -> None:
    headers = sign([KEY, OTHER], "m", NOW_S, BODY)
    for seconds in (-WINDOW_S, 0, WINDOW_S):
        assert forgery([OTHER, KEY], headers, BODY, NOW_S + seconds) == ""


def test_secret_can_be_changed_without_a_moment_in_which_nothing_is_believed() -> None:
    old = sign([KEY], "m", NOW_S, BODY)
    new = sign([OTHER], "m", NOW_S, BODY)
    both = {**old, "webhook-signature": f"v1a,xyz {old['webhook-signature']} {new['webhook-signature']}"}
    assert [forgery([OTHER, KEY], one, BODY, NOW_S) for one in (old, new, both)] == ["", "", ""]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"webhook-id": "n"}, "wrong"),
        ({"webhook-id": ""}, "lacks"),
        ({"webhook-id": "a.b"}, "lacks"),
        ({"webhook-id": "a\nb"}, "lacks"),
        ({"webhook-timestamp": str(NOW_S + 1)}, "wrong"),
        ({"webhook-timestamp": str(NOW_S - WINDOW_S - 1)}, "minutes"),
        ({"webhook-timestamp": str(NOW_S + WINDOW_S + 1)}, "minutes"),
        ({"webhook-timestamp": "now"}, "lacks"),
        ({"webhook-timestamp": "１７３１７０５１２１"}, "lacks"),
        ({"webhook-timestamp": "-1"}, "lacks"),
        ({"webhook-signature": ""}, "lacks"),
        ({"webhook-signature": "v1,"}, "wrong"),
        ({"webhook-signature": "v1,\ud800"}, "wrong"),
        ({"webhook-signature": signature_of(OTHER, "m", NOW_S, BODY)}, "wrong"),
        ({"webhook-signature": signature_of(KEY, "m", NOW_S, BODY).replace("v1", "v2")}, "wrong"),
        ({"webhook-signature": "v1,x " * 16 + signature_of(KEY, "m", NOW_S, BODY)}, "wrong"),
    ],
)
def test_forgeries_are_named(changed: dict[str, str], reason: str) -> None:
    assert reason in forgery([KEY], {**sign([KEY], "m", NOW_S, BODY), **changed}, BODY, NOW_S)


def test_another_body_is_a_forgery() -> None:
    assert forgery([KEY], sign([KEY], "m", NOW_S, BODY), BODY + b" ", NOW_S)


def test_without_a_key_nothing_is_signed_and_nothing_believed() -> None:
    headers = sign([], "m", NOW_S, BODY)
    assert headers == {"webhook-id": "m", "webhook-timestamp": str(NOW_S)}
    assert forgery([], sign([KEY], "m", NOW_S, BODY), BODY, NOW_S)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_short", "whsec_" + "A" * 100, "whsec_%%%", "secret word"]
)
def test_secrets_that_are_none(text: str) -> None:
    assert read_secret(text) is None


@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()))
def test_no_headers_make_the_reader_crash_or_believe(headers: dict[str, str]) -> None:
    assert forgery([KEY], headers, BODY, NOW_S)
