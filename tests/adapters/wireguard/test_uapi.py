"""An endpoint moves by one message to the socket of a userspace WireGuard, and no peer is made by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from meshpeer.adapters.wireguard.uapi import move_endpoint
from meshpeer.core.ids import WireGuardKey

KEY = WireGuardKey(bytes(range(32)))
END = "203.0.113.7:51830"


class Program:
    """Answers one message as it is told."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard = b""

    async def serve(
        self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        with listener:
            await listener.bind(str(path))
            listener.listen()
            task_status.started()
            connection, _ = await listener.accept()
            with connection:
                while b"\n\n" not in self.heard:
                    self.heard += await connection.recv(1024)
                await connection.send(self.answer)


@pytest.mark.parametrize(
    ("answer", "done"),
    [(b"errno=0\n\n", True), (b"errno=-2\n\n", False), (b"", False), (b"x" * 1_000, False)],
)
async def test_a_move_is_done_where_the_program_says_so(tmp_path: Path, answer: bytes, done: bool) -> None:
    program = Program(answer)
    async with trio.open_nursery() as nursery:
        await nursery.start(program.serve, tmp_path / "wg0.sock")
        assert await move_endpoint(tmp_path / "wg0.sock", KEY, END) is done
    assert program.heard.decode() == f"set=1\npublic_key={KEY.hex()}\nupdate_only=true\nendpoint={END}\n\n"


async def test_where_nobody_serves_the_socket_nothing_is_done(tmp_path: Path) -> None:
    assert not await move_endpoint(tmp_path / "wg0.sock", KEY, END)
