"""One meshpeer agent for scripts/bench/membership: the very agent that `meshpeer join` runs, and an eye in
its process.

Asking fifty agents over their sockets many times a second would cost more than what is measured, and so would
looking every 10 ms from inside (measured: most of two cores). So the eye looks where the node says that its
view of the members changed, only at the one thing that it was told to watch, and only until it saw it. It
says what it saw, with the time, as a JSON object a line.

Commands come as lines: "go", "watch WHAT", "rest", "value NAME" (this node asks for that name), "deaths"
(how many it holds dead), "invite USES".
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import trio

from meshpeer.app.agent import SWITCH_INTERVAL_S, Agent
from meshpeer.app.config import load_settings
from meshpeer.app.enrolment import enrol
from meshpeer.app.founding import found
from meshpeer.app.options import InitOptions, JoinOptions, ReadyReport
from meshpeer.app.state import load_state
from meshpeer.app.views import state_of
from meshpeer.core.deadline import Instant
from meshpeer.core.ids import NodeId
from meshpeer.core.node.messages import MembersChanged, RenameAsked
from meshpeer.core.node.unions import NodeEffect, NodeEvent
from meshpeer.runtime.control import InviteRequest

LINE_BYTES_MAX = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--invite", default="")
    options = parser.parse_args()
    flags = {
        "state_dir": options.folder / "state",
        "run_dir": options.folder / "run",
        "config": options.folder.parent / "meshpeer.toml",
        "backend": "none",
        "control_port": options.port,
        "web_port": 0,
        # A user of its own per slot: there are 64 on a machine.
        "slots": 1,
    }
    settings = load_settings(flags, {})
    if options.invite:
        enrol(JoinOptions(invite=options.invite, name=options.name), settings, lambda _: None)
    else:
        found(InitOptions(name=options.name), settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # An agent reads these while it starts. What is measured begins after that, on both sides.
    importlib.import_module("meshpeer.adapters.control.server")
    say("enrolled")
    wait_for_go()
    ready = trio.Event()

    def on_ready(_: ReadyReport) -> None:
        say("up")
        ready.set()

    trio.run(run, Agent(settings, load_state(settings.state_dir), on_ready), ready)


def wait_for_go() -> None:
    """Reads the first line and not a byte more: the rest is the running agent's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("the bench is gone")
        line += byte
    assert line == b"go\n", line


def say(seen: str) -> None:
    sys.stdout.write(json.dumps({"t": time.time(), "seen": seen}) + "\n")
    sys.stdout.flush()


async def run(agent: Agent, ready: trio.Event) -> None:
    eye = Eye(agent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(eye.obey)
        nursery.start_soon(eye.open, ready)
        await agent.main()
        nursery.cancel_scope.cancel()


class Eye:
    """Watches one thing at a time."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._ids: dict[str, NodeId] = {}
        self._wanted = ""
        self._handle: Callable[[NodeEvent, Instant], list[NodeEffect]] | None = None

    async def obey(self) -> None:
        async for line in lines_of_stdin():
            order, _, rest = line.partition(" ")
            match order:
                case "watch":
                    self._wanted = rest
                    self._look()
                case "rest":
                    self._wanted = ""
                case "value":
                    self._agent.driver.post(RenameAsked(name=rest))
                case "deaths":
                    gone = [one for one in self._ids.values() if state_of(self._agent.node, one) == "dead"]
                    say(f"deaths {len(gone)}")
                case "invite":
                    made = await self._agent.api.invite(InviteRequest(uses=int(rest), expires_s=7200))
                    say(f"invite {made.invite}")

    async def open(self, ready: trio.Event) -> None:
        await ready.wait()
        self._handle, self._agent.node.handle = self._agent.node.handle, self._look_after  # type: ignore[method-assign]
        self._look()

    def _look_after(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        assert self._handle is not None
        effects = self._handle(event, now)
        if self._wanted and any(isinstance(effect, MembersChanged) for effect in effects):
            self._look()
        return effects

    def _look(self) -> None:
        if self._handle is not None and self._wanted and self._holds(self._wanted.split()):
            say(self._wanted)
            self._wanted = ""

    def _holds(self, words: list[str]) -> bool:
        node = self._agent.node
        match words:
            case ["alive", count]:
                members = node.roster.members
                if len(members) != int(count):
                    return False
                self._ids = {one.name: one.node for one in members}
                return all(state_of(node, one.node) == "alive" for one in members if one.node != node.me)
            case ["dead", name]:
                return state_of(node, self._ids[name]) == "dead"
            case ["back", name]:
                return state_of(node, self._ids[name]) == "alive"
            case ["value", name, value]:
                listed = node.roster.get(self._ids[name])
                return listed is not None and listed.name == value
        raise ValueError(f"nothing to watch: {words}")


async def lines_of_stdin() -> AsyncIterator[str]:
    buffer = b""
    async with trio.lowlevel.FdStream(0) as stream:
        while piece := await stream.receive_some(LINE_BYTES_MAX):
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                yield line.decode()


if __name__ == "__main__":
    main()
