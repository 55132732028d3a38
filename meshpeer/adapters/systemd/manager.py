"""Asks systemd, by ``systemctl``: is it there, which version, and what to do with our units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from meshpeer.core.errors import EnvironmentFault, MeshpeerError

CALL_S_MAX = 150.0
"""Starting waits until the node is ready, which the unit bounds by TimeoutStartSec."""
WITHOUT = "run `meshpeer up --detach` from whatever starts programs here"


class ServiceFailed(MeshpeerError):
    """The unit was started and did not come up."""


class Manager:
    """The system's service manager."""

    def version(self) -> int:
        """Returns systemd's version, such as 252; raises ``EnvironmentFault`` where it does not run here."""
        said = self._run("show", "--property=Version", "--value")
        number = re.search(r"\d+", said)
        return int(number[0]) if number else 0

    def reload(self) -> None:
        """Has unit files read anew."""
        self._run("daemon-reload")

    def enable(self, unit: str) -> None:
        """Has the unit started at boot."""
        self._run("enable", unit)

    def start(self, unit: str, *, anew: bool) -> None:
        """Starts the unit, ``anew`` also where it runs, and waits until it says that it is ready; raises
        ``ServiceFailed``."""
        try:
            self._run("restart" if anew else "start", unit)
        except EnvironmentFault as error:
            hint = f"its log says why: journalctl -u {unit} -n 20"
            raise ServiceFailed(f"{unit} is installed, but did not start", hint) from error

    def is_active(self, unit: str) -> bool:
        """Says whether the unit runs, or is on its way up."""
        state = self._ask("is-active", unit).stdout.strip()
        return state in ("active", "activating", "reloading")

    def disable(self, *units: str) -> None:
        """Stops the units and takes their links for the boot away."""
        self._run("disable", "--now", *units)

    def forget(self, *units: str) -> None:
        """Forgets failures of units that are gone."""
        self._ask("reset-failed", *units)

    def _run(self, *words: str) -> str:
        done = self._ask(*words)
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        if "not been booted with systemd" in said or "connect to bus" in said:
            raise EnvironmentFault("systemd does not run this machine", WITHOUT)
        if re.search(r"access denied|permission denied|authentication is required", said, re.IGNORECASE):
            raise EnvironmentFault(f"systemd refuses: {said}", "run with sudo")
        raise EnvironmentFault(f"`systemctl {' '.join(words)}` failed: {said}", "run it by hand to see why")

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("systemctl")
        if program is None:
            raise EnvironmentFault("there is no systemd on this machine (no `systemctl`)", WITHOUT)
        try:
            return subprocess.run(
                [program, "--no-pager", "--no-ask-password", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CALL_S_MAX,
                check=False,
                cwd=Path("/"),
            )
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFault(
                f"`systemctl {' '.join(words)}` did not end within {CALL_S_MAX:.0f} s",
                "run it by hand to see why",
            ) from error
        except OSError as error:
            raise EnvironmentFault(f"`{program}` could not be run: {error.strerror}") from error
