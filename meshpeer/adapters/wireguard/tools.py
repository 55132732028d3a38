"""Runs ``wg`` and ``ip``. Secrets travel by stdin: a command line can be read by every user of the
machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import trio

from meshpeer.core.errors import EnvironmentFault

PACKAGES = {
    "wg": ("wireguard-tools", "wireguard-tools"),
    "ip": ("iproute2", "iproute"),
    "wireguard-go": ("wireguard-go", "wireguard-go"),
    "nft": ("nftables", "nftables"),
}
"""Program -> (Debian package, Fedora package)."""
TOOL_S_MAX = 10.0
"""A program that takes longer hangs: a userspace implementation that no longer answers makes ``wg`` wait for
ever."""
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN_WORDS_MAX = 6


class ToolFailed(EnvironmentFault):
    """A program that we ran said no, or nothing; ``said`` is its stderr."""

    def __init__(self, what: str, hint: str = "", *, said: str = "") -> None:
        super().__init__(what, hint)
        self.said = said


def require_tool(name: str) -> str:
    """Returns the program's path; raises ``EnvironmentFault`` naming the packages where it is missing."""
    path = shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)
    if path is None:
        apt, dnf = PACKAGES.get(name, ("", ""))
        install = f"apt install {apt} (Debian, Ubuntu) or dnf install {dnf} (Fedora)" if apt else "install it"
        raise EnvironmentFault(
            f"`{name}` is not installed",
            f"{install}; or join with --backend none: control and jobs, no tunnels",
        )
    return path


async def run_tool(name: str, *arguments: str, stdin: bytes = b"") -> str:
    """Runs a program to its end and returns its stdout; raises ``ToolFailed`` with what it said on stderr."""
    shown = " ".join((name, *arguments[:SHOWN_WORDS_MAX])) + (
        " ..." if len(arguments) > SHOWN_WORDS_MAX else ""
    )
    try:
        with trio.fail_after(TOOL_S_MAX):
            done = await trio.run_process(
                [require_tool(name), *arguments],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=tool_environment(),
            )
    except trio.TooSlowError as error:
        raise ToolFailed(
            f"`{shown}` did not end within {TOOL_S_MAX:.0f} s", "run it by hand to see why"
        ) from error
    except OSError as error:
        raise ToolFailed(f"`{shown}` could not be run: {error.strerror}") from error
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise ToolFailed(f"`{shown}` failed: {_summary(said) or f'exit code {done.returncode}'}", said=said)
    return done.stdout.decode("utf-8", "replace")


def tool_environment() -> dict[str, str]:
    """Returns the agent's environment with what makes the tools speak plainly: English, no colour, no DNS
    retries."""
    return {
        **os.environ,
        "LC_ALL": "C",
        "WG_COLOR_MODE": "never",
        "WG_ENDPOINT_RESOLUTION_RETRIES": "0",
    }


def net_admin() -> bool:
    """Says whether this process may configure interfaces: CAP_NET_ADMIN, which a container's root may
    lack."""
    capability = 12
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return os.geteuid() == 0


def _summary(said: str) -> str:
    lines = [line for line in said.splitlines() if line and not line.startswith("Command failed")]
    return lines[0] if lines else ""
