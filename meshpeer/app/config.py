"""Settings: defaults, then ``meshpeer.toml``, then ``MESHPEER_*`` variables, then flags; frozen once read.

Every key is optional. An unknown key is an error that names the nearest known one: a typing error must not be silence.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from meshpeer.core.errors import LocalFault

Backend = Literal["auto", "kernel", "userspace", "none", "dry-run"]
PORT_MAX = 65_535


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    """Used at init and join; the name is fixed from then on (``meshpeer rename``)."""
    region: str = ""
    hub: Literal["prefer", "allow", "never"] = "allow"
    labels: dict[str, str] = {}
    endpoint: str = ""
    """``HOST[:PORT]`` under which others reach this machine's WireGuard port from outside."""


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seeds: tuple[str, ...] = ()
    """``HOST:PORT`` of members to dial besides those that the node remembers."""
    mdns: bool = True
    hosts_file: bool = True
    """Keep names of members in /etc/hosts (as root)."""


class WireGuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    backend: Backend = "auto"
    interface: str = "wg0"
    listen_port: int = 51820
    """UDP; 0 picks a free one."""
    program: tuple[str, ...] = ("wireguard-go",)
    """The userspace backend: any program that speaks WireGuard's UAPI."""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen_port: int = 51821
    """TCP; 0 picks a free one."""
    web_port: int = 51822
    socket_group: str = ""


class JobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accept: bool = True
    slots: int = 0
    """Tasks of one cpu at once; 0 for as many as there are processors."""
    resources: dict[str, int] = {}
    uids: str = "61000-61063"
    from_: tuple[str, ...] = msgspec.field(default=("*",), name="from")
    """Names or ids of nodes whose jobs this node runs; ``*`` for all."""
    cache_bytes_max: int = 10 * 1024**3


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    callback_base: str = ""
    secret_file: str = ""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of ``meshpeer.toml``."""

    node: NodeSettings = NodeSettings()
    mesh: MeshSettings = MeshSettings()
    wireguard: WireGuardSettings = WireGuardSettings()
    control: ControlSettings = ControlSettings()
    jobs: JobSettings = JobSettings()
    webhooks: WebhookSettings = WebhookSettings()
    log: LogSettings = LogSettings()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node is told by its own machine."""

    state_dir: Path = Path("/var/lib/meshpeer")
    run_dir: Path = Path("/run/meshpeer")
    config: Path = Path("/etc/meshpeer/meshpeer.toml")
    file: File = File()

    @property
    def socket(self) -> Path:
        return self.run_dir / "agent.sock"

    @property
    def slots(self) -> int:
        return self.file.jobs.slots or len(os.sched_getaffinity(0))

    @property
    def uids(self) -> range:
        """The uids that tasks run as, one per slot; raises ``LocalFault`` for another form than ``FIRST-LAST``."""
        first, dash, last = self.file.jobs.uids.partition("-")
        if not (first.isdigit() and dash and last.isdigit()) or not 1_000 <= int(first) <= int(last) < 2**31:
            raise LocalFault(f"uids = {self.file.jobs.uids!r} under [jobs] is not FIRST-LAST above 999", 'for example uids = "61000-61063"')
        return range(int(first), int(last) + 1)


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Reads all sources; ``flags`` hold only what was given, under the keys of ``FLAGS``.

    Raises ``LocalFault`` (exit 2) naming source, key and what is wrong.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    for key in FLAGS:
        variable = "MESHPEER_" + key.upper()
        if key not in given and environment.get(variable):
            given[key] = environment[variable]
    folders = {key: Path(str(given[key])) for key in ("state_dir", "run_dir", "config") if key in given}
    config = folders.get("config", Settings().config)
    raw = _read(config, required="config" in given)
    for key, (section, name, kind) in _OVERRIDES.items():
        if key in given:
            raw.setdefault(section, {})[name] = _number(key, given[key]) if kind is int else str(given[key])
    return Settings(file=_shape(raw, str(config)), **{"config": config, **folders})


_OVERRIDES: dict[str, tuple[str, str, type]] = {
    "backend": ("wireguard", "backend", str),
    "interface": ("wireguard", "interface", str),
    "listen_port": ("wireguard", "listen_port", int),
    "control_port": ("control", "listen_port", int),
    "web_port": ("control", "web_port", int),
    "slots": ("jobs", "slots", int),
}
FLAGS = ("state_dir", "run_dir", "config", *_OVERRIDES)
"""Flags that override settings; each is also a variable, such as MESHPEER_STATE_DIR."""


def _read(config: Path, *, required: bool) -> dict[str, dict[str, object]]:
    try:
        with config.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        if required:
            raise LocalFault(f"{config} does not exist", "name another file with --config, or leave it out for the defaults") from error
        return {}
    except tomllib.TOMLDecodeError as error:
        raise LocalFault(f"{config} is not valid TOML: {error}", "mend the line that it names") from error
    except OSError as error:
        raise LocalFault(f"{config} can't be read: {error.strerror}", "check its owner and mode") from error


def _shape(raw: dict[str, dict[str, object]], source: str) -> File:
    _refuse_unknown(raw, source)
    try:
        file = msgspec.convert(raw, File)
    except msgspec.ValidationError as error:
        raise LocalFault(f"{source}: {error}", "see `meshpeer.toml` in the reference for each key's type and range") from error
    ports = {
        "wireguard.listen_port": file.wireguard.listen_port,
        "control.listen_port": file.control.listen_port,
        "control.web_port": file.control.web_port,
    }
    for key, port in ports.items():
        if not 0 <= port <= PORT_MAX:
            raise LocalFault(f"{source}: {key} = {port} is not a port", f"use 0 to {PORT_MAX}; 0 picks a free one")
    if not 1 <= len(file.wireguard.interface) <= 15 or not file.wireguard.interface.replace("-", "").replace("_", "").isalnum():
        raise LocalFault(f"{source}: interface = {file.wireguard.interface!r} is not a name for an interface", "use up to 15 letters and digits, such as wg0")
    if not 0 <= file.jobs.slots <= 4_096:
        raise LocalFault(f"{source}: slots = {file.jobs.slots} is out of range", "use 1 to 4096, or 0 for one per processor")
    return file


def _refuse_unknown(raw: Mapping[str, object], source: str) -> None:
    sections = {field.encode_name: field.type for field in msgspec.structs.fields(File)}
    for section, content in raw.items():
        if section not in sections:
            raise LocalFault(f"{source}: unknown section [{section}]", _nearest(section, list(sections), "sections"))
        if not isinstance(content, dict):
            raise LocalFault(f"{source}: [{section}] is not a section", f"write [{section}] on a line of its own")
        known = [field.encode_name for field in msgspec.structs.fields(sections[section])]
        for key in content:
            if key not in known:
                raise LocalFault(f"{source}: unknown key {key} in [{section}]", _nearest(key, known, "keys"))


def _nearest(word: str, known: list[str], what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known {what}: {', '.join(known)}"


def _number(key: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise LocalFault(f"{key.replace('_', '-')} = {value!r} is not a number", "give a whole number") from error
