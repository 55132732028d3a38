"""What a client makes of results, whatever a worker put into them."""

from __future__ import annotations

import base64
import json
import pickle
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshpeer.adapters.control.client import ControlClient
from meshpeer.client import Job, RemoteError
from meshpeer.client.jobs import Form
from meshpeer.core.errors import LocalFault, PeerFault
from meshpeer.runtime.control import CallResult

POISON = b"\x80\x05cposix\nabort\n)R."
"""A pickle that ends the process that reads it."""
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["type", "message", "traceback", "pickle", "more"]), inner)
    ),
)


def job(*, unpickle: bool) -> Job[object]:
    return Job(ControlClient(Path("/nonexistent")), "j" + "a" * 19, "x", Form(unpickle=unpickle))


def ended(data: bytes | None, path: str = "", state: str = "succeeded", error: str = "") -> CallResult:
    size = len(data or b"")
    return CallResult(
        task="call[0]", index=0, state=state, node="n", error=error, path=path, size=size, data=data
    )


@settings(max_examples=50)
@given(data=st.binary() | DOCUMENTS.map(lambda one: json.dumps(one).encode()))
def test_a_report_is_read_whatever_stands_in_it(data: bytes) -> None:
    with pytest.raises(RemoteError, match="exit code 1") as caught:
        job(unpickle=False).value_of(ended(data, "results/call.0.error.json", "failed", "exit code 1"))
    assert caught.value.__cause__ is None


@given(data=st.binary())
def test_json_of_a_worker_is_a_value_or_its_fault(data: bytes) -> None:
    try:
        value = job(unpickle=True).value_of(ended(data, "results/call.0.json"))
    except PeerFault:
        return
    assert repr(value) == repr(json.loads(data))


def test_pickles_are_read_by_nobody_who_did_not_ask_for_them() -> None:
    report = json.dumps({"type": "E", "pickle": base64.b64encode(POISON).decode()}).encode()
    with pytest.raises(RemoteError):
        job(unpickle=False).value_of(ended(report, "results/call.0.error.json", "failed", "E: x"))
    with pytest.raises(LocalFault, match="runs whatever its maker put into it"):
        job(unpickle=False).value_of(ended(POISON, "results/call.0.pickle"))


def test_a_pickle_that_can_not_be_read_is_the_tasks_error() -> None:
    for data in (b"", b"\x80\x05", pickle.dumps(1)[:-1], b"cno_such_module\nx\n."):
        with pytest.raises(RemoteError, match="can't be unpickled here"):
            job(unpickle=True).value_of(ended(data, "results/call.0.pickle"))
    report = json.dumps({"type": "E", "pickle": "AAAA", "traceback": "t"}).encode()
    with pytest.raises(RemoteError) as caught:
        job(unpickle=True).value_of(ended(report, "results/call.0.error.json", "failed", "E"))
    assert (caught.value.__cause__, caught.value.traceback) == (None, "t")


def test_text_of_another_machine_does_not_take_hold_of_a_terminal() -> None:
    report = json.dumps({"type": "E\x1b]0;x\x07", "traceback": "a\n\x1b[31mb"}).encode()
    with pytest.raises(RemoteError) as caught:
        job(unpickle=False).value_of(ended(report, "results/call.0.error.json", "failed", "E: \x1b[2J"))
    error = caught.value
    assert (error.what, error.kind, error.traceback) == ("E: ?[2J", "E?]0;x?", "a\n?[31mb")


def test_a_call_without_a_value_says_why() -> None:
    for state, error, what in (
        ("failed", "killed by SIGKILL", "killed by SIGKILL"),
        ("skipped", "", "the task was skipped"),
        ("succeeded", "beta, which holds this file, can't give it", "can't be had: beta"),
        ("succeeded", "", "its task left nothing"),
    ):
        with pytest.raises(RemoteError, match=what):
            job(unpickle=True).value_of(ended(None, "", state, error))
    with pytest.raises(CancelledError):
        job(unpickle=True).value_of(ended(None, "", "cancelled"))
