"""The node as a service of systemd: install it, show its units, remove it."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import meshpeer
from meshpeer.app.cli import asked as shared
from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.core.errors import EnvironmentFault, LocalFault

if TYPE_CHECKING:
    from meshpeer.adapters.systemd import Manager
    from meshpeer.app.config import Settings
    from meshpeer.app.service_plan import Owner, ServicePlan

UnitDir = Annotated[
    str,
    typer.Option("--unit-dir", metavar="DIR", help="Where systemd looks for units."),
]
UNIT_DIR = "/etc/systemd/system"
_INSTALL = """
Examples:
  sudo meshpeer service install --now    start it now and at every boot
  meshpeer service install --print       show the units, change nothing
"""


def add_to(app: typer.Typer) -> None:
    service = group("service", "The node as a service of systemd.")
    command(service, "install", examples=_INSTALL)(install)
    command(service, "remove")(remove)
    app.add_typer(service, name="service", rich_help_panel="Being in a mesh")


def install(
    asked: Asked,
    now: Annotated[
        bool, typer.Option("--now", help="Start it, too, in the place of an agent that runs.")
    ] = False,
    show_only: Annotated[bool, typer.Option("--print", help="Show the units and change nothing.")] = False,
    unit_dir: UnitDir = UNIT_DIR,
    backend: shared.Backend = None,
    interface: shared.Interface = None,
    listen_port: shared.ListenPort = None,
    control_port: shared.ControlPort = None,
    web_port: shared.WebPort = None,
    slots: shared.Slots = None,
) -> None:
    """Have systemd run this node: at boot, and again when it fails.

    Writes units with the rights that this node's settings need and no others. Run it again after changing
    settings.
    """
    from meshpeer.adapters.systemd import Manager, UnitFiles
    from meshpeer.app.service_units import UNITS, render_units

    flags = {
        "backend": backend,
        "interface": interface,
        "listen_port": listen_port,
        "control_port": control_port,
        "web_port": web_port,
        "slots": slots,
    }
    settings = asked.settings(**flags)
    plan = _plan(settings, flags)
    manager = Manager()
    if show_only:
        _print(asked, render_units(plan, systemd=_version_if_any(manager)))
        return
    files = UnitFiles(Path(unit_dir).absolute())
    units = render_units(plan, systemd=manager.version())
    _make_run_dir(settings, plan)
    files.check(UNITS)
    changed = files.write(units)
    changed += files.remove([name for name in UNITS if name not in units])
    _hand_over(asked, settings, plan, manager, changed=bool(changed), now=now)
    _report(asked, plan, [str(files.path(name)) for name in units], changed=bool(changed), now=now)


def remove(asked: Asked, unit_dir: UnitDir = UNIT_DIR) -> None:
    """Stop the service and remove its units; the node stays a member, and its tunnels stay up."""
    from meshpeer.adapters.systemd import Manager, UnitFiles
    from meshpeer.app.service_units import AGENT, TUNNEL, TUNNEL_PATH, UNITS

    files = UnitFiles(Path(unit_dir).absolute())
    there = files.present(UNITS)
    files.check(there)
    if there:
        manager = Manager()
        manager.version()
        # The program that WireGuard may be stays: tunnels outlive the agent.
        manager.disable(*(name for name in (AGENT, TUNNEL_PATH) if name in there))
        files.remove(there)
        manager.reload()
        manager.forget(AGENT, TUNNEL, TUNNEL_PATH)
    if asked.json:
        show.document({"removed": [str(files.path(name)) for name in there]})
    elif not asked.quiet:
        show.line("the service is removed" if there else "there is no service of meshpeer to remove")
        if there:
            show.line(
                "  tunnels stay up, and the node is a member still: `meshpeer up` runs it, `meshpeer down`"
            )
            show.line("  takes tunnels down, `meshpeer leave` is for good")


# --- steps ------------------------------------------------------------------------------------------------


def _plan(settings: Settings, flags: dict[str, str | None]) -> ServicePlan:
    from meshpeer.app.service_plan import carried, plan_service
    from meshpeer.app.state import load_state

    if not all(str(path).isprintable() for path in (settings.state_dir, settings.run_dir, settings.config)):
        raise LocalFault(
            "a folder's name has control characters, which a unit can't hold", "rename the folder"
        )
    node = load_state(settings.state_dir).node
    return plan_service(
        settings,
        node,
        _owner(settings.state_dir),
        program=_program(),
        code=_code(),
        environment=carried(flags, os.environ),
    )


def _owner(folder: Path) -> Owner:
    from meshpeer.app.service_plan import Owner

    uid = folder.stat().st_uid
    try:
        entry = pwd.getpwuid(uid)
        return Owner(user=entry.pw_name, group=grp.getgrgid(entry.pw_gid).gr_name, root=uid == 0)
    except KeyError as error:
        raise EnvironmentFault(
            f"{folder} belongs to uid {uid}, which is no user of this machine",
            f"give it to one: chown -R USER {folder}",
        ) from error


def _program() -> tuple[str, ...]:
    """Returns how this very program is run: by its own name, where it was."""
    called = Path(sys.argv[0]).absolute()
    if called.name == "meshpeer" and called.is_file() and os.access(called, os.X_OK):
        return (str(called),)
    return (sys.executable, "-m", "meshpeer")


def _code() -> list[Path]:
    """Returns where this program has its files."""
    return [Path(one) for one in (_program()[0], sys.prefix, sys.base_prefix, Path(meshpeer.__file__).parent)]


def _version_if_any(manager: Manager) -> int:
    try:
        return manager.version()
    except EnvironmentFault:
        return 0


def _make_run_dir(settings: Settings, plan: ServicePlan) -> None:
    """Makes the folder of the control socket where systemd does not: what is not there can't be writable."""
    folder = settings.run_dir
    if folder not in plan.writable or folder.exists():
        return
    owner = settings.state_dir.stat()
    try:
        folder.mkdir(mode=0o755, parents=True)
        os.chown(folder, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} can't be made: {error.strerror}", "run with sudo, or name another --run-dir"
        ) from error


def _hand_over(
    asked: Asked, settings: Settings, plan: ServicePlan, manager: Manager, *, changed: bool, now: bool
) -> None:
    """Brings systemd in step, and with ``now`` has it run the node in the place of whoever does."""
    from meshpeer.app.service_units import AGENT

    manager.reload()
    manager.enable(AGENT)
    if not now:
        return
    active = manager.is_active(AGENT)
    if not active:
        _end_agent(asked, settings)
    if changed or not active:
        manager.start(AGENT, anew=active)


def _end_agent(asked: Asked, settings: Settings) -> None:
    """Stops an agent that somebody started by hand; tunnels stay up."""
    from meshpeer.adapters.store.lock import is_locked
    from meshpeer.app.cli.mesh import await_end

    if is_locked(settings.state_dir):
        asked.client(settings).stop(take_down=False)
        await_end(settings)


# --- what it says -----------------------------------------------------------------------------------------


def _print(asked: Asked, units: dict[str, str]) -> None:
    if asked.json:
        show.document(units)
        return
    for number, (name, text) in enumerate(units.items()):
        if len(units) > 1:
            show.line(f"{'' if number == 0 else chr(10)}# --- {name} ---")
        for line in text.splitlines():
            show.line(line)


def _report(asked: Asked, plan: ServicePlan, paths: list[str], *, changed: bool, now: bool) -> None:
    if asked.json:
        show.document({"units": paths, "changed": changed, "started": now})
        return
    if asked.quiet:
        return
    does = "runs, and starts at every boot" if now else "starts at every boot"
    show.line(show.heading(f"meshpeer.service is installed: the node {does}"))
    if not changed:
        show.line("  nothing had changed since it was installed")
    rights = " ".join(grant.capability for grant in plan.grants).lower()
    show.facts(
        [
            ("unit" if len(paths) == 1 else "units", "  ".join(paths)),
            ("runs as", f"{plan.owner.user}, with {rights or 'no capabilities'}"),
        ]
    )
    show.line("Next:")
    if not now:
        show.line("  sudo meshpeer service install --now    starts it, in the place of an agent that runs")
    show.line("  systemctl status meshpeer     journalctl -u meshpeer     systemd-analyze security meshpeer")
