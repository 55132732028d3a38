"""One change by the socket of a userspace WireGuard itself, for the case that starting ``wg`` takes too long.

The protocol is lines of ``key=value`` and an empty one (wireguard.com/xplatform, "Cross-platform userspace
implementation"); it is what ``wg`` speaks.
"""

from __future__ import annotations

from pathlib import Path

import trio

from meshpeer.core.ids import WireGuardKey

ANSWER_S_MAX = 0.5
ANSWER_BYTES_MAX = 256


async def move_endpoint(path: Path, key: WireGuardKey, endpoint: str) -> bool:
    """Sets the endpoint of a peer that is there; says whether that was done.

    ``path``: the socket; ``endpoint``: address and port in numbers."""
    said = f"set=1\npublic_key={key.hex()}\nupdate_only=true\nendpoint={endpoint}\n\n"
    heard = b""
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(said.encode("ascii"))
                while b"\n\n" not in heard and len(heard) < ANSWER_BYTES_MAX:
                    more = await stream.receive_some(ANSWER_BYTES_MAX)
                    if not more:
                        break
                    heard += more
        except (OSError, trio.BrokenResourceError):
            return False
    return heard.startswith(b"errno=0\n")
