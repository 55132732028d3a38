"""Whole agents in this process, alone on loopback, and a service that misbehaves as it is told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trio

from meshpeer.adapters.specfile.load import load_text
from meshpeer.app.agent import Agent
from meshpeer.app.config import (
    ControlSettings,
    File,
    JobSettings,
    LogSettings,
    MeshSettings,
    Settings,
    WebhookSettings,
    WireGuardSettings,
)
from meshpeer.app.founding import found
from meshpeer.app.options import InitOptions
from meshpeer.app.state import load_state
from meshpeer.core.jobs.model import JobSpec
from meshpeer.core.wire import cbor
from meshpeer.core.wire.webhook_signatures import sign
from meshpeer.runtime.control import Submission

IDS = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass
class OddService:
    """A service that does as each request says, and remembers what it was told."""

    port: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    messages: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    refused: int = 0
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call_back(
        self,
        manner: str,
        callback: str,
        result: object,
        *,
        kind: str = "application/json",
        status: str = "succeeded",
        **more: object,
    ) -> None:
        """Calls back until somebody answers."""
        body = json.dumps({"status": status, "result": result, **more}).encode()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            request = urllib.request.Request(callback, body, {"content-type": kind, **sign([], "m", 1, body)})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    code = answer.status
            except urllib.error.HTTPError as error:
                code = error.code
                error.close()
            except OSError:
                self.refused += 1
                time.sleep(0.1)
                continue
            with self.lock:
                self.answers.setdefault(manner, []).append(code)
            return

    def release(self) -> None:
        for callback in self.held:
            self.call_back("held", callback, {"held": True})

    async def settled(self) -> None:
        await until(lambda: self.busy == 0)


def handler_of(service: OddService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            manner, callback = body.get("manner") or body["type"], self.headers["meshpeer-callback"]
            message = (self.headers["webhook-id"], self.headers["idempotency-key"])
            with service.lock:
                count = service.requests[manner] = service.requests.get(manner, 0) + 1
                service.messages.setdefault(manner, set()).add(message)
                service.busy += 1
            try:
                self.behave(manner, callback, count)
            finally:
                with service.lock:
                    service.busy -= 1

        def behave(self, manner: str, callback: str, count: int) -> None:
            tell = service.call_back
            match manner:
                case "sync":
                    self.say(200, b'{"done": true}')
                case "job.completed":
                    self.say(503 if count < 2 else 200)
                case "later" | "fails":
                    self.say(202)
                    failed = {"status": "failed", "error": "no such voice"} if manner == "fails" else {}
                    tell(manner, callback, 1, **failed)  # type: ignore[arg-type]
                case "slow":
                    self.say(202)
                    time.sleep(0.5)
                    tell(manner, callback, 1)
                case "before the 202":
                    tell(manner, callback, 1)
                    self.say(202)
                case "twice":
                    self.say(202)
                    tell(manner, callback, 1)
                    tell(manner, callback, 2)
                case "after two 503" if count < 3:
                    self.say(503, retry_after="0")
                case "after a cut" if count < 2:
                    self.connection.shutdown(socket.SHUT_RDWR)
                case "after two 503" | "after a cut":
                    self.say(202)
                    tell(manner, callback, 1)
                case "with a forgery first":
                    self.say(202)
                    tell(manner, callback[:-4] + "AAAA", "forged")
                    tell(manner, callback, "forged", kind="application/x-www-form-urlencoded")
                    tell(manner, callback, "forged", status="won")
                    tell(manner, callback, 1)
                case "late":
                    self.say(202)
                    time.sleep(3.5)
                    tell(manner, callback, 1)
                case "held":
                    service.held.append(callback)
                    self.say(202)
                case "redirect":
                    self.say(307, location=f"{service.url}/do")
                case "too large":
                    self.say(200, b" " * 1_100_000)
                case "404":
                    self.say(404)

        def say(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "content_length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def odd_service(port: int = 0) -> Iterator[OddService]:
    service = OddService()
    server = ThreadingHTTPServer(("127.0.0.1", port), handler_of(service))
    service.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def spec_of(tasks: dict[str, object], name: str = "hooks") -> JobSpec:
    document = json.dumps({"name": name, "tasks": tasks}).encode()
    return load_text(document, source_name="job.json", folder=Path("/nonexistent")).spec


def submission(spec: JobSpec) -> Submission:
    job = "j" + "".join(IDS[one % 32] for one in os.urandom(19))
    return Submission(job=job, spec=cbor.encode(spec))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings_of(
    folder: Path, *, web_port: int | None = None, slots: int = 4, secret_file: str = ""
) -> Settings:
    """``web_port``: None for one that is free, 0 for no pages."""
    return Settings(
        state_dir=folder / "state",
        run_dir=folder / "run",
        file=File(
            mesh=MeshSettings(mdns=False, hosts_file=False),
            wireguard=WireGuardSettings(backend="none"),
            control=ControlSettings(listen_port=0, web_port=free_port() if web_port is None else web_port),
            jobs=JobSettings(slots=slots),
            webhooks=WebhookSettings(secret_file=secret_file),
            log=LogSettings(level="error"),
        ),
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Agent]:
    """Yields an agent that is ready; stops it afterwards."""
    ready = trio.Event()
    agent = Agent(settings, load_state(settings.state_dir), lambda _: ready.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.main)
        with trio.fail_after(20):
            await ready.wait()
        yield agent
        agent.stopping.set()


async def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - a thread does not tell
            await trio.sleep(0.01)


@contextmanager
def founded_folder(options: InitOptions | None = None, **changes: object) -> Iterator[Path]:
    """Makes a folder with a founded mesh that tasks' users may pass, as pytest's own may not be; ``changes``
    are those of ``settings_of``."""
    path = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    path.chmod(0o711)
    try:
        found(options or InitOptions(name="alone"), settings_of(path, **changes))
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
