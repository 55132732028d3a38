"""Are the ports that an agent needs free?"""

from __future__ import annotations

import errno
import socket

import msgspec

from meshpeer.app.config import Settings
from meshpeer.core.errors import EnvironmentFault


def check_ports(settings: Settings) -> None:
    """Raises ``EnvironmentFault`` naming the port that is taken, before anything is changed."""
    _check(socket.SOCK_STREAM, settings.file.control.listen_port, "TCP", "--control-port", "ss -ltnp")
    if settings.file.wireguard.backend != "none":
        _check(socket.SOCK_DGRAM, settings.file.wireguard.listen_port, "UDP", "--listen-port", "ss -lunp")


def settle_ports(settings: Settings) -> Settings:
    """Returns the settings with free ports in place of 0; a node keeps them from then on."""
    wireguard, control = settings.file.wireguard, settings.file.control
    file = msgspec.structs.replace(
        settings.file,
        wireguard=msgspec.structs.replace(wireguard, listen_port=wireguard.listen_port or free_port("udp")),
        control=msgspec.structs.replace(control, listen_port=control.listen_port or free_port("tcp")),
    )
    return msgspec.structs.replace(settings, file=file)


def free_port(protocol: str) -> int:
    """Returns a ``tcp`` or ``udp`` port that nobody uses now."""
    with socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    ) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _check(kind: int, port: int, word: str, flag: str, command: str) -> None:
    if port == 0:
        return
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise EnvironmentFault(
                    f"{word} port {port} needs root", f"choose one above 1023 with {flag}"
                ) from error
            raise EnvironmentFault(
                f"{word} port {port} is in use",
                f"stop what uses it ({command} shows it), or choose another with {flag}",
            ) from error
