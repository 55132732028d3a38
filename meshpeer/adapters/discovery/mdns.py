"""mDNS with zeroconf, bridged to trio. The service is ``_meshpeer._tcp.local.`` with the mesh's fingerprint,
the node's id and its port.

What is heard is a hint whom to dial: a stranger may announce anything, and learns nothing by it, since a link
needs certificates.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import AsyncIterator, Sequence

import trio
import zeroconf

from meshpeer.runtime.ports import FoundNode

SERVICE = "_meshpeer._tcp.local."
RESOLVE_MS = 1_500
TEXT_MAX = 64


class MdnsDiscovery:
    """Implements ``runtime.ports.Discovery``."""

    async def browse(self) -> AsyncIterator[FoundNode]:
        """Yields nodes as they appear or change, for as long as it is iterated."""
        send, receive = trio.open_memory_channel[FoundNode](math.inf)
        token = trio.lowlevel.current_trio_token()

        def on_change(
            zeroconf: zeroconf.Zeroconf, service_type: str, name: str, state_change: object
        ) -> None:
            # Runs in zeroconf's thread.
            found = _resolve(zeroconf, name)
            if found is not None:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(_deliver, send, found)

        daemon = await trio.to_thread.run_sync(_open)
        if daemon is None:
            return
        browsers: list[zeroconf.ServiceBrowser] = []
        try:
            await trio.to_thread.run_sync(
                lambda: browsers.append(zeroconf.ServiceBrowser(daemon, SERVICE, handlers=[on_change]))
            )
            async for found in receive:
                yield found
        finally:
            with trio.CancelScope(shield=True):
                # Its thread may be asking somebody just now; the daemon it asks by must not go before it.
                for browser in browsers:
                    await trio.to_thread.run_sync(browser.cancel)
                await trio.to_thread.run_sync(daemon.close)

    async def announce(self, *, mesh_hint: str, node_hint: str, port: int, addresses: Sequence[str]) -> None:
        """Announces until cancelled; the goodbye is sent on the way out."""
        daemon = await trio.to_thread.run_sync(_open)
        if daemon is None:
            return
        info = zeroconf.ServiceInfo(
            SERVICE,
            f"{node_hint[:20]}.{SERVICE}",
            port=port,
            properties={"mesh": mesh_hint, "node": node_hint, "v": "1"},
            addresses=[
                socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in addresses
            ],
            server=f"meshpeer-{node_hint[:12]}.local.",
        )
        try:
            await trio.to_thread.run_sync(lambda: daemon.register_service(info, allow_name_change=True))
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(daemon.unregister_service, info)
                await trio.to_thread.run_sync(daemon.close)


def _open() -> zeroconf.Zeroconf | None:
    try:
        return zeroconf.Zeroconf(ip_version=zeroconf.IPVersion.All)
    except OSError:
        try:
            return zeroconf.Zeroconf(ip_version=zeroconf.IPVersion.V4Only)
        except OSError:
            # No multicast here (no network, or no IPv4): there is nobody to find.
            return None


def _resolve(daemon: zeroconf.Zeroconf, name: str) -> FoundNode | None:
    info = zeroconf.ServiceInfo(SERVICE, name)
    try:
        if not info.request(daemon, RESOLVE_MS) or not info.port:
            return None
    except zeroconf.NotRunningException:
        # The daemon is being closed while its own thread still reports.
        return None
    return found_in(info)


def found_in(info: zeroconf.ServiceInfo) -> FoundNode:
    """Reads an announcement that was resolved: whatever a stranger says in it ends up as bounded text."""
    texts = {
        key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")[:TEXT_MAX]
        for key, value in info.properties.items()
    }
    addresses = [
        f"[{one}]:{info.port}" if ":" in one else f"{one}:{info.port}"
        for one in info.parsed_scoped_addresses()
    ]
    return FoundNode(
        mesh_hint=texts.get("mesh", ""), node_hint=texts.get("node", ""), addresses=tuple(addresses[:8])
    )


def _deliver(channel: trio.MemorySendChannel[FoundNode], found: FoundNode) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        channel.send_nowait(found)
