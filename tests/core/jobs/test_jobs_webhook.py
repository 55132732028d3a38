"""Webhooks of a job: how they are read, judged and expanded, and which URLs a node lets jobs call."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.core.errors import LocalFault
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.check import check_job
from meshpeer.core.jobs.json_values import DEPTH_MAX, EXPANDED_CHARACTERS_MAX, TEXT_BYTES_MAX
from meshpeer.core.jobs.located import Entry, Located, Mapping, Scalar, Sequence
from meshpeer.core.jobs.model import Array, Element, JobSpec, TaskSpec, Webhook
from meshpeer.core.jobs.problems import describe_errors
from meshpeer.core.jobs.rules import WEBHOOK_ALLOW, Fault
from meshpeer.core.jobs.spec import parse_job
from meshpeer.core.jobs.webhook import body_of, parse_body
from meshpeer.core.jobs.webhook_urls import (
    allow_fault,
    is_loopback,
    refusal,
    url_fault,
)

URL = "http://127.0.0.1:18789/judge"
JOB = JobId("jtest")
OWN_PORTS = (51821, 51822)


def test_webhook_is_read_with_its_body_as_json() -> None:
    (task,) = tasks_of({"t": {"webhook": {"url": URL, "body": {"frames": 24, "list": [1.5, True, None]}}}})
    assert task.webhook == Webhook(url=URL, body='{"frames":24,"list":[1.5,true,null]}')
    assert (task.argv, task.shell) == ((), "")


def test_defaults_of_a_process_do_not_reach_a_webhook() -> None:
    defaults = {
        "env": {"A": "1"},
        "cwd": "x",
        "retries": 2,
        "timeout": "9s",
        "secrets": ["TOKEN"],
        "resources": {"cpu": 2, "memory": "1GiB"},
    }
    (task,) = tasks_of({"t": {"webhook": {"url": URL}}}, defaults)
    assert (task.env, task.cwd, task.secrets, task.memory_bytes) == ((), "", (), 0)
    assert (task.retries, task.timeout_ms, task.cpu) == (2, 9_000, 2)


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        (
            {"webhook": {"url": URL}, "run": "true"},
            [".run: it runs a program and calls a service (make it two tasks)"],
        ),
        ({"webhook": {}}, [".webhook: it names no url (write {url: http://127.0.0.1:8000/run})"]),
        (
            {"webhook": URL},
            [".webhook: it is text, and must be a mapping (write {url: http://127.0.0.1:8000/run})"],
        ),
        (
            {"webhook": {"url": "ftp://a/"}},
            [
                ".webhook.url: 'ftp://a/' is no URL of a webhook (write http://HOST:PORT/PATH, such as "
                "http://127.0.0.1:8000/run)"
            ],
        ),
        (
            {"webhook": {"url": URL}, "outputs": ["a"]},
            [".outputs: a webhook has no outputs (a service has its own; remove it, or run a command)"],
        ),
        (
            {"webhook": {"url": URL}, "secrets": ["TOKEN"]},
            [".secrets: a webhook has no secrets (a service has its own; remove it, or run a command)"],
        ),
        (
            {"webhook": {"url": URL}, "resources": {"memory": "1GiB"}},
            [".resources.memory: a webhook has no memory (a service has its own; remove it)"],
        ),
        (
            {"webhook": {"url": URL, "body": {"a": "${index}"}}},
            [".webhook.body: '${index}' in a task without an array (give it an array)"],
        ),
        (
            {"webhook": {"url": URL, "body": {"a": float("nan")}}},
            [".webhook.body.a: nan is no number that JSON has (write a finite one)"],
        ),
        (
            {"webhook": {"url": URL, "method": "GET"}},
            [".webhook.method: unknown field 'method' (known are body, url)"],
        ),
    ],
)
def test_a_malformed_webhook_is_answered_by_field(fields: dict[str, object], errors: list[str]) -> None:
    document = located({"name": "x", "tasks": {"t": fields}})
    said = describe_errors(parse_job(document).errors, "job")
    assert [one.removeprefix("job:").lstrip() for one in said] == [f"tasks.t{error}" for error in errors]


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "NaN",
        "1e999",
        '{"a": "\\ud800"}',
        '"\\u0000"',
        "[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2),
        "[" * 100_000,
        f'"{"x" * TEXT_BYTES_MAX}"',
        '"${nothing}"',
        '"${"',
    ],
)
def test_body_from_elsewhere_is_believed_in_nothing(body: str) -> None:
    spec = JobSpec(name="x", tasks=(TaskSpec(name="t", webhook=Webhook(url=URL, body=body)),))
    assert check_job(spec)


def test_fields_are_expanded_inside_of_their_texts_alone() -> None:
    evil = '", "admin": "yes'
    spec = TaskSpec(
        name="t",
        array=Array(size=1, elements=(Element(fields=(("word", evil),)),)),
        webhook=Webhook(url=URL, body='{"say":"<${word}>","n":["${index}","$$x"],"${word}":1}'),
    )
    sent = json.loads(body_of(spec, 0, JOB, "t[0]", 3))
    assert sent == {"say": f"<{evil}>", "n": ["0", "$x"], "${word}": 1}


def test_body_that_grows_without_bound_is_refused() -> None:
    word = "x" * 4_000
    many = "${word}" * (EXPANDED_CHARACTERS_MAX // len(word) + 1)
    spec = TaskSpec(
        name="t",
        array=Array(size=1, elements=(Element(fields=(("word", word),)),)),
        webhook=Webhook(url=URL, body=json.dumps([many])),
    )
    with pytest.raises(LocalFault, match="too large"):
        body_of(spec, 0, JOB, "t[0]", 1)


def test_spec_without_a_webhook_reads_as_before() -> None:
    old = msgspec.json.decode(b'{"name": "t", "argv": ["true"]}', type=TaskSpec)
    assert old.webhook is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0$")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_what_is_sent_is_what_was_written(value: object) -> None:
    spec = TaskSpec(name="t", webhook=Webhook(url=URL, body=json.dumps(value)))
    assert json.loads(body_of(spec, None, JOB, "t", 1)) == value


@given(st.text())
def test_no_text_makes_the_reader_of_bodies_crash(text: str) -> None:
    parse_body(text)


# --- URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://localhost",
        "https://models.example:8443/v1/run?model=a&x=%20",
        "http://[::1]:8000/",
        "http://[fd00::1]:8000/a/b",
        "http://10.0.0.7/",
        f"http://{'x' * 63}.a-b.c/",
        "http://a/v1/models/gemma..2;size=7b/...;/x",
    ],
)
def test_plain_urls_are_taken(url: str) -> None:
    assert url_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "HTTP://127.0.0.1/",
        "http://user@127.0.0.1:8000/",
        "http://127.0.0.1:8000@evil.example/",
        "http://127.0.0.1:8000/#part",
        "http://127.0.0.1:*/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.1:8000/",
        "http://0x7f.0.0.1:8000/",
        "http://2130706433:8000/",
        "http://0177.0.0.1/",
        "http://a..b/",
        "http://ex ample/",
        "http://exämple/",
        "http://a/b\r\nX: y",
        "http://a\\@b/",
        "http://[::1%25lo]/",
        "http://[zz]/",
        "http://a/x/../y",
        "http://a/x/%2E%2e/y",
        "http://a/x%2fy",
        "http://a/run/..;/admin",
        "http://a/run/..;x=1/admin",
        "http://a/run/.%2e;x/admin",
        "http://a/run/..%3bx/admin",
        "http://a/run/%252e%252e/admin",
        "http://a/" + "x" * 3_000,
        f"http://{'x' * 64}.example/",
        "http://a-.example/",
        "http://-a.example/",
        "http://a.-b.example/",
    ],
)
def test_urls_that_can_be_read_in_two_ways_are_refused(url: str) -> None:
    fault = url_fault(url)
    assert isinstance(fault, Fault)
    assert fault.what


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (URL, True),
        ("http://localhost:8000/x", True),
        ("http://[::1]:8000/x", True),
        ("http://127.0.0.1:51822/metrics", False),
        ("http://localhost:51821/", False),
        ("http://[::1]:51822/", False),
        ("https://127.0.0.1:8000/", False),
        ("http://127.0.0.2:8000/", False),
        ("http://127.0.0.1.evil.example:8000/", False),
        ("http://169.254.169.254/latest/meta-data/", False),
        ("http://10.0.0.7:8000/", False),
        ("http://models.example:8000/", False),
        ("http://0.0.0.0:8000/", False),
        ("http://[::ffff:127.0.0.1]:8000/", False),
    ],
)
def test_by_default_a_node_lets_jobs_call_its_loopback_alone(url: str, allowed: bool) -> None:
    assert (not refusal(url, WEBHOOK_ALLOW, OWN_PORTS)) == allowed


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("http://models.example:8000", "http://models.example:8000/any/thing?x", True),
        ("http://models.example:8000", "http://models.example:8001/", False),
        ("http://models.example", "http://models.example:80/", True),
        ("http://models.example", "https://models.example:80/", False),
        ("http://models.example:*", "http://models.example:9/", True),
        ("http://models.example:*", "http://sub.models.example:9/", False),
        ("http://10.0.0.7:8000/v1/", "http://10.0.0.7:8000/v1/run", True),
        ("http://10.0.0.7:8000/v1", "http://10.0.0.7:8000/v1", True),
        ("http://10.0.0.7:8000/v1", "http://10.0.0.7:8000/v10", False),
        ("http://10.0.0.7:8000/v1/", "http://10.0.0.7:8000/admin", False),
        ("http://[::ffff:127.0.0.1]:51822", "http://[::ffff:127.0.0.1]:51822/", False),
    ],
)
def test_what_a_node_allows_is_an_origin_and_the_beginning_of_a_path(
    entry: str, url: str, allowed: bool
) -> None:
    assert allow_fault(entry) is None
    assert (not refusal(url, [entry], OWN_PORTS)) == allowed


def test_refusal_names_the_origin_alone() -> None:
    said = refusal("http://10.0.0.7:8000/secret?key=1", WEBHOOK_ALLOW, OWN_PORTS)
    assert said == "this node lets no job call http://10.0.0.7:8000"


@pytest.mark.parametrize("entry", ["*", "http://*:80", "http://a:80/?x", "10.0.0.0/8", "http://a/../b"])
def test_what_a_node_can_not_allow_is_said(entry: str) -> None:
    assert allow_fault(entry) is not None


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_all_forms_of_loopback_are_known(host: str) -> None:
    assert is_loopback(host)


# --- helpers ------------------------------------------------------------------------------------------------


def tasks_of(tasks: object, defaults: object | None = None) -> tuple[TaskSpec, ...]:
    fields = {"name": "x", "tasks": tasks, **({"defaults": defaults} if defaults else {})}
    parsed = parse_job(located(fields))
    assert parsed.spec is not None, describe_errors(parsed.errors, "job")
    return parsed.spec.tasks


def located(value: object) -> Located:
    if isinstance(value, dict):
        return Mapping(
            entries=tuple(Entry(key=scalar(key), value=located(one)) for key, one in value.items())
        )
    if isinstance(value, list):
        return Sequence(items=tuple(located(one) for one in value))
    return scalar(value)


def scalar(value: object) -> Scalar:
    assert value is None or isinstance(value, str | int | float | bool)
    return Scalar(value=value, written=str(value))
