"""Targets that read what people and programs of this machine write: files, options, requests."""

from __future__ import annotations

import collections
import functools
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import msgspec
import trio

from fuzzkit import mutate
from fuzzkit.samples import samples
from fuzzkit.target import Target
from meshpeer.adapters.control.server import application
from meshpeer.adapters.secrets.file import FileSecrets
from meshpeer.adapters.specfile import load_text
from meshpeer.adapters.transport.dialling import split_address
from meshpeer.app.cli.invites import STDIN, duration_s, resolve_seed
from meshpeer.app.cli.job_run import read_array_option
from meshpeer.app.config import load_settings
from meshpeer.app.founding import check_endpoint
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.problems import InvalidJob
from meshpeer.core.jobs.rules import duration_ms, output_pattern, relative_path, size_bytes
from meshpeer.core.records.routes import check_routes
from meshpeer.core.records.subnets import check_subnet
from meshpeer.core.wire import cbor
from meshpeer.runtime.control import CharterChange, ControlApi, InviteRequest, RevocationRequest, Submission
from meshpeer.runtime.ports import DialFault
from meshpeer.sim.scenario import parse_scenario

_ROOT = Path(__file__).resolve().parents[3]
_EXAMPLES = _ROOT / "docs" / "examples"
sys.path.append(str(_ROOT / "tests" / "adapters" / "control"))

from fake_control_api import FakeApi  # noqa: E402

_NOWHERE = Path("/nonexistent")


# --- files --------------------------------------------------------------------------------------------------


def _job_in(suffix: str) -> Callable[[bytes], object]:
    return lambda data: load_text(data, source_name=f"job{suffix}", folder=_NOWHERE)


_YAML = b"""\
name: render
defaults: {retries: 2, env: {QUALITY: high}, secrets: [API_TOKEN]}
tasks:
  fetch:
    run: [sh, -c, "seq ${index} > frames-${index}.txt"]
    array: 0-11
    timeout: 90s
    resources: {memory: 512MiB, cpu: 2}
    outputs: [frames-*.txt, "out/"]
  join:
    run: |
      cat frames-*.txt
    needs: [{task: fetch, into: in}, fetch]
    array: {width: [1, 2], colour: [red, blue]}
    cwd: work
    network: none
  judge:
    python: {call: "a.b:c", args: ["${index}", {x: [1, 2.5]}], kwargs: {k: null}}
    array: 2
"""
_TOML = b"""\
name = "render"
[defaults]
env = { QUALITY = "high" }
[tasks.fetch]
run = ["sh", "-c", "true"]
array = "0-11"
timeout = "90s"
[[tasks.join.needs]]
task = "fetch"
[tasks.join]
run = '''cat'''
env = { FACTOR = 1_000.5e3 }
"""
_JSON = b"""\
{"name": "render", "tasks": {"fetch": {"run": ["true"], "array": [{"a": 1}, {"a": 2.5}], "retries": 1},
"join": {"run": "cat", "needs": ["fetch"], "env": {"A": "b"}, "outputs": ["x/"], "secrets": ["A_B"]}}}
"""
_CONFIG = b"""\
[node]
advertise = ["192.168.5.0/24"]
[mesh]
seeds = ["192.0.2.1:51821"]
via = "ssh"
[wireguard]
interface = "wg0"
listen_port = 51820
[relay]
ports = "51830-51929"
mbit_max = 100
[jobs]
slots = 4
from = ["alpha"]
uids = "61000-61063"
secrets_file = "/etc/meshpeer/secrets.toml"
"""
_SECRETS = b"""\
API_TOKEN = "abcdefgh-123456"
[DATABASE_PASSWORD]
value = "correct horse"
from = ["alpha", "beta"]
"""


class _File:
    """A file in memory that programs read by its name, as secrets are: of mode 0600."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("meshpeer-fuzz", os.MFD_CLOEXEC)
        os.fchmod(self._descriptor, 0o600)
        self.path = Path(f"/proc/self/fd/{self._descriptor}")

    def hold(self, data: bytes) -> Path:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        return self.path


_file = functools.cache(_File)


def _read_settings(data: bytes) -> object:
    settings = load_settings({"config": _file().hold(data)}, {})
    return settings.uids, settings.relay_ports


def _read_environment(data: bytes) -> object:
    """Reads settings from the environment: a line for each variable."""
    said = data.replace(b"\0", b"").decode("utf-8", "replace").splitlines()
    return load_settings({"config": _file().hold(b"")}, dict(one.partition("=")[::2] for one in said))


def _read_secrets(data: bytes) -> object:
    return FileSecrets(_file().hold(data)).load()


def _read_scenario(data: bytes) -> object:
    return parse_scenario(data.decode("utf-8", "replace"), "scenario.toml")


# --- options ------------------------------------------------------------------------------------------------


def _read_option(data: bytes) -> object:
    """Reads one word as every option reads it that takes words of a form of its own."""
    word = data.decode("utf-8", "replace")
    for read in _OPTIONS:
        try:
            read(word)
        except (LocalFault, DialFault):
            continue
    return None


_OPTIONS: tuple[Callable[[str], object], ...] = (
    split_address,
    lambda word: duration_s(word, "--expires"),
    duration_ms,
    size_bytes,
    relative_path,
    output_pattern,
    read_array_option,
    check_subnet,
    lambda word: check_routes(word.split(","), "--route"),
    lambda word: check_endpoint(word, 51_820),
    lambda word: resolve_seed("" if word == STDIN else word, "~nobody-of-this-name/invite"),
)
_WORDS = (
    "192.0.2.1:51821",
    "[2001:db8::1]:51821",
    "host.example",
    "24h",
    "500ms",
    "2GiB",
    "in/frames-*.png",
    "0-23",
    '{"a": [1, 2]}',
    "10.10.0.0/24",
    "192.168.5.0/24,fd00:1::/64",
    "~nobody-of-this-name/x",
)


# --- the control socket -------------------------------------------------------------------------------------


_app = functools.cache(lambda: application(_api()))


def _api() -> ControlApi:
    api = FakeApi()
    api.made = collections.defaultdict(lambda: collections.defaultdict(bytes))
    return api


def _ask(data: bytes) -> object:
    """Asks the control API: a line ``METHOD PATH?QUERY LENGTH``, then the body. Starlette raises bugs."""
    line, _, body = data.partition(b"\n")
    method, target, length = (*line.decode("latin-1").split(" "), "", "", "")[:3]
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": unquote(path, errors="replace"),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(b"content-length", length.encode("latin-1"))] if length else [],
        "scheme": "http",
        "root_path": "",
    }
    pieces = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return pieces.pop() if pieces else {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(int(str(message["status"])))

    trio.run(_app(), scope, receive, send)
    return statuses


def _requests() -> list[bytes]:
    lines = [
        "GET /v1/status",
        "GET /v1/why?from=alpha&to=beta",
        "POST /v1/ping?node=beta&count=3",
        "POST /v1/stop?down=1",
        "HEAD /v1/blobs/00ff",
        "PUT /v1/blobs/00ff 3\nabc",
        "GET /v1/jobs/jaaaaaaaaaaaaaaaaaaa/log?task=a&stream=stdout&offset=0&wait=1",
        "GET /v1/jobs/jaaaaaaaaaaaaaaaaaaa/output?task=a&path=b",
        "GET /v1/jobs/jaaaaaaaaaaaaaaaaaaa/watch",
        "POST /v1/jobs/jaaaaaaaaaaaaaaaaaaa/cancel",
        "GET /v1/none",
    ]
    bodies = {
        "POST /v1/invites": InviteRequest,
        "POST /v1/charter": CharterChange,
        "POST /v1/revocations": RevocationRequest,
    }
    asked = [
        f"{line}\n".encode() + msgspec.json.encode(one)
        for line, kind in bodies.items()
        for one in samples(kind, [b""])
    ]
    submitted = [b"POST /v1/jobs\n" + cbor.encode(one) for one in samples(Submission, [b"", b"\xa0"])]
    return [*(line.encode() for line in lines), *asked, *submitted]


def _change_request(data: bytes, bytes_max: int, dice: random.Random) -> bytes:
    """Changes the line of a request, or its body by the body's own structure."""
    line, newline, body = data.partition(b"\n")
    if not body or dice.random() < 0.4:
        line = _change_line(line, 300, dice)
    elif body[:1] in b"{[":
        body = mutate.json_text(body, bytes_max, dice)
    else:
        body = _change_message(body, bytes_max, dice)
    return (line + newline + body)[:bytes_max]


_change_line = mutate.text(
    "GET", "POST", "PUT", "HEAD", " ", "/v1/", "?", "&", "count=", "offset=", "%00", "²", ".."
)
_change_message = mutate.cbor()


TARGETS = (
    Target(
        name="people.job-yaml",
        run=_job_in(".yaml"),
        refusals=(InvalidJob,),
        seeds=lambda: [_YAML],
        mutate=mutate.text(
            "needs:", "array:", "- ", "  ", "{", "[", "&a ", "*a", "!!int ", "<<: ", "|", "~", "0x1f"
        ),
    ),
    Target(
        name="people.job-toml",
        run=_job_in(".toml"),
        refusals=(InvalidJob,),
        seeds=lambda: [_TOML],
        mutate=mutate.text("[", "]", "=", '"""', "'''", "1979-05-27", "inf", "[[tasks.a]]", "_"),
    ),
    Target(
        name="people.job-json",
        run=_job_in(".json"),
        refusals=(InvalidJob,),
        seeds=lambda: [_JSON],
        mutate=mutate.json_text,
        bytes_max=16_384,
    ),
    Target(
        name="people.job-stdin",
        run=_job_in(""),
        refusals=(InvalidJob,),
        seeds=lambda: [_YAML, _TOML, _JSON],
        mutate=mutate.text("{", '"', "[", "=", ":"),
    ),
    Target(
        name="people.settings",
        run=_read_settings,
        refusals=(LocalFault,),
        seeds=lambda: [_CONFIG],
        mutate=mutate.text("[jobs]", "[relay]", "=", "true", "[[", '"', "\\u0000"),
    ),
    Target(
        name="people.environment",
        run=_read_environment,
        refusals=(LocalFault,),
        seeds=lambda: [b"MESHPEER_SLOTS=4\nMESHPEER_LISTEN_PORT=51820\nMESHPEER_UIDS=61000-61063"],
        mutate=mutate.text("MESHPEER_STATE_DIR=", "MESHPEER_INTERFACE=", "~x", "=", "²"),
        bytes_max=6_000,
    ),
    Target(
        name="people.secrets",
        run=_read_secrets,
        refusals=(LocalFault,),
        seeds=lambda: [_SECRETS],
        mutate=mutate.text("[A]", "value", "from", "=", '"', "'''", "\\u0000"),
        bytes_max=16_384,
    ),
    Target(
        name="people.scenario",
        run=_read_scenario,
        refusals=(LocalFault,),
        seeds=lambda: [one.read_bytes() for one in sorted((_EXAMPLES / "sim").glob("*.toml"))],
        mutate=mutate.text("[[events]]", "=", "size", "at_s", "inf", "nan", "-1"),
        bytes_max=6_000,
    ),
    Target(
        name="people.option",
        run=_read_option,
        refusals=(),
        seeds=lambda: [one.encode() for one in _WORDS],
        mutate=mutate.text(":", "/", "[", "]", "²", "-", "GiB", "ms", "{", ","),
        bytes_max=6_000,
    ),
    Target(
        name="people.request",
        run=_ask,
        refusals=(),
        seeds=_requests,
        mutate=_change_request,
        bytes_max=16_384,
    ),
)
