"""Settings: defaults, then ``meshpeer.toml``, then ``MESHPEER_*`` variables, then flags; frozen once
read.

Every key is optional. An unknown key is an error that names the nearest known one: a typing error must
not be silence. What is wrong is said with where it stands: the file and its line, the variable, or the
flag.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.rules import WEBHOOK_ALLOW
from meshpeer.core.wire.unreadable import UNREADABLE

Backend = Literal["auto", "kernel", "userspace", "none", "dry-run"]
PORT_MAX = 65_535
SLOTS_MAX = 4_096
RELAY_PORT_MIN = 1_024
"""Below, only root may listen; the relay's process is nobody."""
RELAY_PAIRS_MAX = 256
RELAY_MBIT_MAX = 1_000_000
UID_MIN = 1_000
"""Below are users of the system."""
MEMORY_BYTES_MIN = 64 * 1024**2
OUTPUT_BYTES_MIN = 1024**2


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    """Used at init and join; the name is fixed from then on."""
    region: str = ""
    hub: Literal["prefer", "allow", "never"] = "allow"
    labels: dict[str, str] = {}
    """What tasks can ask for by ``where: {label: ...}``."""
    endpoint: str = ""
    """``HOST[:PORT]`` under which others reach this machine's WireGuard port from outside."""
    advertise: tuple[str, ...] = ()
    """LANs behind this machine that the mesh shall reach through it, as CIDRs; up to 8."""
    advertise_nat: bool = True
    """Hosts on those LANs see this machine's address, and need no route back into the mesh."""


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seeds: tuple[str, ...] = ()
    """``HOST:PORT`` of members to dial besides those that the node remembers."""
    via: Literal["", "ssh"] = ""
    """``ssh``: the seeds are ports of this machine that ``ssh -L`` forwards to members' control ports."""
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
    fwmark: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0x6D70
    """Of WireGuard's own packets, for rules of this machine that send other traffic into a tunnel; 0 for
    none."""
    rotate_days: Annotated[int, msgspec.Meta(ge=0, le=3_650)] = 0
    """After how many days this node changes its WireGuard key by itself, as `meshpeer rotate-key` does; 0 for
    never."""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen_port: int = 51821
    """TCP; 0 picks a free one."""
    web_port: int = 51822
    """TCP, on loopback alone: ``/metrics``; 0 for none."""
    socket_group: str = ""


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accept: bool = True
    """Whether this node lends ports to pairs that can't reach each other (capability ``relay``)."""
    ports: str = "51830-51929"
    """UDP, ``FIRST-LAST``, two for each pair; open them in the firewall."""
    pairs_max: int = 50
    mbit_max: int = 1_000
    """Megabits a second, of all pairs together."""
    pair_mbit_max: int = 500


class QuotaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this node gives to the jobs of one submitter; 0 for no bound."""

    slots: Annotated[int, msgspec.Meta(ge=0)] = 0
    """At once."""
    tasks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Open ones of jobs that this node owns or keeps a replica of."""
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of the files of these jobs."""


class JobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accept: bool = True
    slots: int = 0
    """Tasks of one cpu at once; 0 for as many as there are processors."""
    resources: dict[str, int] = {}
    """Named counts that tasks can ask for, such as ``gpu = 2``, beside slots and memory."""
    quotas: dict[str, QuotaSettings] = {}
    """What this node gives to whom, by names or ids of submitting nodes; ``*`` for all others."""
    uids: str = "61000-61063"
    from_: tuple[str, ...] = msgspec.field(default=("*",), name="from")
    """Names or ids of nodes whose jobs this node runs; ``*`` for all."""
    cache_bytes_max: int = 10 * 1024**3
    """What files of jobs may take of the disk. What is needed stays, whatever this says; the rest goes, the
    least recently used first."""
    results_days: Annotated[int, msgspec.Meta(ge=0, le=3_650)] = 7
    """How long this node keeps what jobs made that are over, at least, where they don't say (``keep``)."""
    keep_days_max: Annotated[int, msgspec.Meta(ge=0, le=3_650)] = 365
    """How long it keeps that of jobs which ask for more, at most."""
    history_days: Annotated[int, msgspec.Meta(ge=1, le=3_650)] = 30
    """How long it knows jobs that are over; with a job goes all that is kept for it."""
    memory_bytes_max: int = 0
    """Of all tasks together; 0 for all of the machine's but an eighth, and 128 MiB at least."""
    output_bytes_max: int = 8 * 1024**3
    """Of one attempt: stdout, stderr and scratch folder together. A job may ask for less."""
    python: str = ""
    """The interpreter of tasks that are functions, as a path; empty for the first python3 where tasks look
    for programs."""
    secrets_file: str = "/etc/meshpeer/secrets.toml"
    """What tasks of this node get under the names that their jobs give; mode 0600."""
    namespaces: bool = False
    """The unit of ``meshpeer service install`` lets tasks have a network namespace, for ``network: none``."""


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: tuple[str, ...] = WEBHOOK_ALLOW
    """What jobs may have this node call: ``http://HOST:PORT``, with ``*`` for any port, and the beginning of
    a path."""
    callback_base: str = ""
    """Where services call back, in place of ``http://127.0.0.1:WEB_PORT``; a proxy passes it on to there."""
    secret_file: str = ""
    """One ``whsec_...`` a line, mode 0600: signs requests, and every call-back must be signed."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of ``meshpeer.toml``."""

    node: NodeSettings = NodeSettings()
    mesh: MeshSettings = MeshSettings()
    wireguard: WireGuardSettings = WireGuardSettings()
    control: ControlSettings = ControlSettings()
    relay: RelaySettings = RelaySettings()
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
        """The uids that tasks run as, one per slot; raises ``LocalFault`` for another form than
        ``FIRST-LAST``.
        """
        return _uids(self.file.jobs.uids, "uids under [jobs]")

    @property
    def relay_ports(self) -> range:
        """The UDP ports that this node lends; none where it does not. Raises ``LocalFault`` as ``uids``."""
        relay = self.file.relay
        return _relay_ports(relay.ports, "ports under [relay]") if relay.accept else range(0)


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Reads all sources; ``flags`` hold only what was given, under the keys of ``FLAGS``.

    Raises ``LocalFault`` (exit 2) that names where the error stands, and what is wrong.
    """
    given: dict[str, str] = {}
    origins: dict[str, str] = {}
    for key in FLAGS:
        variable = "MESHPEER_" + key.upper()
        flag = flags.get(key)
        if flag is not None:
            given[key], origins[key] = str(flag), "--" + key.replace("_", "-")
        elif environment.get(variable):
            given[key], origins[key] = environment[variable], variable
    folders = {key: _path(origins[key], given[key]) for key in FOLDERS if key in given}
    config = folders.get("config", Settings().config)
    text = _read(config, required="config" in given)
    raw = _parse(text, config)
    _refuse_unknown(raw, text, config)
    overridden: dict[tuple[str, str], str] = {}
    for key, (section, name, kind) in _OVERRIDES.items():
        if key in given:
            raw.setdefault(section, {})[name] = (
                _number(origins[key], given[key]) if kind is int else given[key]
            )
            overridden[section, name] = origins[key]

    def where(section: str, key: str) -> str:
        return (
            overridden.get((section, key)) or f"{_place(text, config, section, key)}: {key} under [{section}]"
        )

    return Settings(file=_check(_shape(raw, config, where), where), **{"config": config, **folders})


FOLDERS = ("state_dir", "run_dir", "config")
_OVERRIDES: dict[str, tuple[str, str, type]] = {
    "backend": ("wireguard", "backend", str),
    "interface": ("wireguard", "interface", str),
    "listen_port": ("wireguard", "listen_port", int),
    "control_port": ("control", "listen_port", int),
    "web_port": ("control", "web_port", int),
    "slots": ("jobs", "slots", int),
    "uids": ("jobs", "uids", str),
    "log_level": ("log", "level", str),
}
FLAGS = (*FOLDERS, *_OVERRIDES)
"""What overrides the file; each is a variable, such as MESHPEER_STATE_DIR, and most are flags."""

Where = Callable[[str, str], str]
"""Names where a key's value comes from, by section and key."""


def _path(origin: str, text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise LocalFault(
            f"{origin}: {text!r} begins with ~ and leads to nobody's home", "write the path from / on"
        ) from error


def _read(config: Path, *, required: bool) -> str:
    try:
        return config.read_text("utf-8")
    except FileNotFoundError as error:
        if required:
            hint = "name another file with --config, or leave it out for the defaults"
            raise LocalFault(f"{config} does not exist", hint) from error
        return ""
    except UnicodeDecodeError as error:
        raise LocalFault(f"{config} is not UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise LocalFault(f"{config} can't be read: {error.strerror}", "check its owner and mode") from error


def _parse(text: str, config: Path) -> dict[str, dict[str, object]]:
    if not text:
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except UNREADABLE as error:
        raise LocalFault(f"{config} is not valid TOML: {error}", "mend the line that it names") from error


def _refuse_unknown(raw: Mapping[str, object], text: str, config: Path) -> None:
    sections = {field.encode_name: field.type for field in msgspec.structs.fields(File)}
    for section, content in raw.items():
        at = _place(text, config, section, "")
        if section not in sections:
            what = (
                f"{at}: unknown {f'section [{section}]' if isinstance(content, dict) else f'key {section}'}"
            )
            raise LocalFault(what, _nearest(section, list(sections), "sections"))
        if not isinstance(content, dict):
            raise LocalFault(f"{at}: {section} is no section", f"write [{section}] on a line of its own")
        known = [field.encode_name for field in msgspec.structs.fields(sections[section])]
        for key in content:
            if key not in known:
                what = f"{_place(text, config, section, key)}: unknown key {key} under [{section}]"
                raise LocalFault(what, _nearest(key, known, "keys"))


def _shape(raw: Mapping[str, object], config: Path, where: Where) -> File:
    try:
        return msgspec.convert(raw, File)
    except msgspec.ValidationError as error:
        wrong, _, path = str(error).partition(" - at `$.")
        section, _, key = path.rstrip("`").partition(".")
        key = re.split(r"[.\[]", key)[0]
        at = where(section, key) if key else str(config)
        what = f"{at}: {wrong[:1].lower()}{wrong[1:]}".replace("`", "")
        raise LocalFault(what, "the reference of meshpeer.toml has each key's type and range") from error


def _check(file: File, where: Where) -> File:
    """Returns the file where its values are in their ranges; raises ``LocalFault`` for the first that is
    not.
    """
    ports = (
        ("wireguard", "listen_port", file.wireguard.listen_port),
        ("control", "listen_port", file.control.listen_port),
        ("control", "web_port", file.control.web_port),
    )
    for section, key, port in ports:
        if not 0 <= port <= PORT_MAX:
            zero = "0 for none" if key == "web_port" else "0 picks a free one"
            raise LocalFault(f"{where(section, key)}: {port} is not a port", f"use 0 to {PORT_MAX}; {zero}")
    interface = file.wireguard.interface
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,15}", interface):
        what = f"{where('wireguard', 'interface')}: {interface!r} can't name an interface"
        raise LocalFault(what, "use up to 15 letters and digits, such as wg0")
    if not 0 <= file.jobs.slots <= SLOTS_MAX:
        what = f"{where('jobs', 'slots')}: {file.jobs.slots} is out of range"
        raise LocalFault(what, f"use 1 to {SLOTS_MAX}, or 0 for one per processor")
    jobs = file.jobs
    for key, size, least in (
        ("cache_bytes_max", jobs.cache_bytes_max, 0),
        ("memory_bytes_max", jobs.memory_bytes_max or MEMORY_BYTES_MIN, MEMORY_BYTES_MIN),
        ("output_bytes_max", jobs.output_bytes_max, OUTPUT_BYTES_MIN),
    ):
        if size < least:
            what = f"{where('jobs', key)}: {size} is out of range"
            raise LocalFault(what, f"give a number of bytes, {least:,} or more")
    if not Path(jobs.secrets_file).is_absolute():
        what = f"{where('jobs', 'secrets_file')}: {jobs.secrets_file!r} is no absolute path"
        raise LocalFault(what, "write it from / on, such as /etc/meshpeer/secrets.toml")
    if jobs.python and not Path(jobs.python).is_absolute():
        what = f"{where('jobs', 'python')}: {jobs.python!r} is no absolute path"
        raise LocalFault(what, "write it from / on, such as /usr/bin/python3")
    if file.mesh.via and not file.mesh.seeds:
        what = f"{where('mesh', 'via')}: there are no seeds that could go via {file.mesh.via}"
        raise LocalFault(what, 'name the forwarded port: seeds = ["127.0.0.1:51900"] under [mesh]')
    _uids(file.jobs.uids, where("jobs", "uids"))
    if file.jobs.resources or file.node.labels:
        _check_profile(file, where)
    _check_relay(file, where)
    if file.webhooks != WebhookSettings():
        _check_webhooks(file.webhooks, where)
    return _with_lans(file, where("node", "advertise")) if file.node.advertise else file


def _with_lans(file: File, at: str) -> File:
    """Returns the file with its LANs in canonical form; raises ``LocalFault`` for what is none."""
    # What it takes to know a LAN is loaded where somebody names one: every command reads the settings.
    from meshpeer.core.records.routes import check_routes

    node = msgspec.structs.replace(file.node, advertise=check_routes(file.node.advertise, at))
    return msgspec.structs.replace(file, node=node)


def _check_profile(file: File, where: Where) -> None:
    """Raises ``LocalFault`` for what peers would refuse to hear of this node."""
    # Every command reads the settings, and few machines have these.
    from meshpeer.core.jobs import rules
    from meshpeer.core.jobs.placing import label_fault, resource_fault

    resources, labels = file.jobs.resources, file.node.labels
    for name, count in resources.items():
        fault = resource_fault(name) or rules.number_fault(count, 0, rules.RESOURCE_COUNT_MAX)
        if fault is not None:
            raise LocalFault(f"{where('jobs', 'resources')}: {name}: {fault.what}", fault.hint)
    for name, value in labels.items():
        fault = label_fault(name) or label_fault(value)
        if fault is not None:
            raise LocalFault(f"{where('node', 'labels')}: {name}: {fault.what}", fault.hint)
    for section, key, count, most in (
        ("jobs", "resources", len(resources), rules.RESOURCES_MAX),
        ("node", "labels", len(labels), rules.LABELS_MAX),
    ):
        if count > most:
            raise LocalFault(f"{where(section, key)}: {count} of them, and {most} are allowed", "name fewer")


def _check_webhooks(webhooks: WebhookSettings, where: Where) -> None:
    # Every command reads the settings, and few machines have these.
    from meshpeer.core.jobs.webhook_urls import allow_fault, url_fault

    for entry in webhooks.allow:
        fault = allow_fault(entry)
        if fault is not None:
            raise LocalFault(f"{where('webhooks', 'allow')}: {fault.what}", fault.hint)
    base = webhooks.callback_base
    if base and (url_fault(base) is not None or base.endswith("/") or "?" in base):
        what = f"{where('webhooks', 'callback_base')}: {base!r} is nothing to put /v1/callbacks/ behind"
        raise LocalFault(what, "write http://HOST:PORT, or with a path and no last slash")
    if webhooks.secret_file and not Path(webhooks.secret_file).is_absolute():
        what = f"{where('webhooks', 'secret_file')}: {webhooks.secret_file!r} is no absolute path"
        raise LocalFault(what, "write it from / on, such as /etc/meshpeer/webhooks.secret")


def _check_relay(file: File, where: Where) -> None:
    relay = file.relay
    ports = _relay_ports(relay.ports, where("relay", "ports"))
    if relay.accept and file.wireguard.listen_port in ports:
        what = f"{where('relay', 'ports')}: {relay.ports} holds WireGuard's own port"
        raise LocalFault(what, f"leave {file.wireguard.listen_port} out")
    for key, value, highest in (
        ("pairs_max", relay.pairs_max, RELAY_PAIRS_MAX),
        ("mbit_max", relay.mbit_max, RELAY_MBIT_MAX),
        ("pair_mbit_max", relay.pair_mbit_max, RELAY_MBIT_MAX),
    ):
        if not 1 <= value <= highest:
            hint = f"use 1 to {highest}, or accept = false to relay for nobody"
            raise LocalFault(f"{where('relay', key)}: {value} is out of range", hint)


def _relay_ports(text: str, at: str) -> range:
    first, last = _span(text)
    if not RELAY_PORT_MIN <= first < last <= PORT_MAX:
        what = f"{at}: {text!r} is not FIRST-LAST, two ports or more between {RELAY_PORT_MIN} and {PORT_MAX}"
        raise LocalFault(what, 'for example ports = "51830-51929"')
    return range(first, last + 1)


def _uids(text: str, at: str) -> range:
    first, last = _span(text)
    if not UID_MIN <= first <= last < 2**31:
        raise LocalFault(
            f"{at}: {text!r} is not FIRST-LAST above {UID_MIN - 1}", 'for example uids = "61000-61063"'
        )
    return range(first, last + 1)


def _span(text: str) -> tuple[int, int]:
    """Returns both numbers of ``FIRST-LAST``; (0, 0) for another form."""
    match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _place(text: str, config: Path, section: str, key: str) -> str:
    """Returns ``FILE:LINE`` of a key (or of its section's title, where the key is empty), or the file
    alone.
    """
    inside = not section
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        title = re.match(r"\[+\s*([A-Za-z0-9_-]+)", stripped)
        if title:
            inside = title[1] == section
            if inside and key and re.match(rf"\[\s*[\w-]+\s*\.\s*{re.escape(key)}\s*\]", stripped):
                return f"{config}:{number}"
            if inside and not key:
                return f"{config}:{number}"
        elif (inside and key and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*[=.]", stripped)) or (
            not key and re.match(rf"[\"']?{re.escape(section)}[\"']?\s*[=.]", stripped)
        ):
            return f"{config}:{number}"
    return str(config)


def _nearest(word: str, known: list[str], what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known {what}: {', '.join(known)}"


def _number(origin: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise LocalFault(f"{origin}: {text!r} is not a number", "give a whole number") from error
