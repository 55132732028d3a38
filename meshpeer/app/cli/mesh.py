"""Being in a mesh: found one, join one, run the node again, stop it, leave for good."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meshpeer.app.cli import asked as shared
from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.core.errors import EnvironmentFault, NotRunning

if TYPE_CHECKING:
    from meshpeer.app.config import Settings

PANEL = "Being in a mesh"
END_WAIT_S = 15.0
"""How long a stopping agent is waited for: its goodbyes and its interface take a second or two."""
Name = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="This node's name [made of the host's].", show_default=False),
]
Region = Annotated[
    str, typer.Option("--region", metavar="REGION", help="Where it stands, such as eu.", show_default=False)
]
Endpoint = Annotated[
    str,
    typer.Option(
        "--endpoint", metavar="HOST[:PORT]", help="Where others reach it from outside.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    command(app, "init", panel=PANEL, examples=_INIT)(init)
    command(app, "join", panel=PANEL, examples=_JOIN)(join)
    command(app, "up", panel=PANEL, examples=_UP)(up)
    command(app, "down", panel=PANEL)(down)
    command(app, "stop", panel=PANEL)(stop)
    command(app, "leave", panel=PANEL)(leave)


_INIT = """
Examples:
  sudo meshpeer init --name alpha --region eu
  sudo meshpeer init --endpoint home.example.org --detach
  meshpeer init --backend none --state-dir ~/mesh --run-dir ~/mesh/run
"""
_JOIN = """
Examples:
  sudo meshpeer join meshpeer1.eNo...            the line that `meshpeer invite` printed
  sudo meshpeer join invite.txt --name gamma -d  the same, from a file
  sudo meshpeer join 203.0.113.9 -i invite.txt   through this member first
  MESHPEER_INVITE=meshpeer1.eNo... meshpeer join lan   find a member on this network
"""
_UP = """
Examples:
  sudo meshpeer up            in the foreground; Ctrl-C stops it, tunnels stay
  sudo meshpeer up --detach   returns once the node is ready
"""


def init(
    asked: Asked,
    name: Name = "",
    region: Region = "",
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="What it is [scheduler, compute]; may be repeated."),
    ] = None,
    subnet: Annotated[
        str, typer.Option("--subnet", metavar="CIDR", help="The mesh's IPv4 addresses.")
    ] = "10.10.0.0/24",
    endpoint: Endpoint = "",
    topology: Annotated[
        Literal["auto", "full", "regional"],
        typer.Option(
            "--topology",
            metavar="auto|full|regional",
            help="Who has a tunnel with whom: all with all, or regions by hubs (auto: all with all).",
        ),
    ] = "auto",
    mesh_name: Annotated[
        str, typer.Option("--mesh-name", metavar="NAME", help="The mesh's name.", show_default=False)
    ] = "",
    detach: shared.Detach = False,
    backend: shared.Backend = None,
    interface: shared.Interface = None,
    listen_port: shared.ListenPort = None,
    control_port: shared.ControlPort = None,
    web_port: shared.WebPort = None,
    slots: shared.Slots = None,
) -> None:
    """Found a mesh and run its first node.

    Makes the mesh's root key, an issuer's key and this node's own, all on this machine and never sent; then
    runs the node.
    """
    from meshpeer.app.cli.running import run_node

    settings = asked.settings(
        backend=backend,
        interface=interface,
        listen_port=listen_port,
        control_port=control_port,
        web_port=web_port,
        slots=slots,
    )
    from meshpeer.app.options import InitOptions

    options = InitOptions(
        name=name,
        region=region,
        roles=tuple(role) if role else InitOptions().roles,
        subnet=subnet,
        endpoint=endpoint,
        topology=topology,
        mesh_name=mesh_name,
    )

    def prepare(settings: Settings) -> None:
        from meshpeer.app.founding import found

        found(options, settings)

    run_node(asked, settings, prepare, detach=detach)


def join(
    asked: Asked,
    seed: Annotated[
        str,
        typer.Argument(
            metavar="[SEED]",
            help="An invite, a file that holds one, HOST[:PORT], or lan.",
            show_default=False,
        ),
    ] = "",
    invite: Annotated[
        str,
        typer.Option(
            "--invite",
            "-i",
            metavar="INVITE",
            help="The invite or its file, - for standard input.",
            envvar="MESHPEER_INVITE",
            show_default=False,
        ),
    ] = "",
    name: Name = "",
    region: Region = "",
    endpoint: Endpoint = "",
    detach: shared.Detach = False,
    backend: shared.Backend = None,
    interface: shared.Interface = None,
    listen_port: shared.ListenPort = None,
    control_port: shared.ControlPort = None,
    web_port: shared.WebPort = None,
    slots: shared.Slots = None,
) -> None:
    """Join a mesh with an invite, and run this node.

    Checks the invite and reaches a member before anything is written: a failed join leaves nothing behind.
    """
    from meshpeer.app.cli.invites import resolve_seed
    from meshpeer.app.cli.running import run_node

    settings = asked.settings(
        backend=backend,
        interface=interface,
        listen_port=listen_port,
        control_port=control_port,
        web_port=web_port,
        slots=slots,
    )
    where, text = resolve_seed(seed, invite)
    from meshpeer.app.options import JoinOptions

    options = JoinOptions(invite=text, seed=where, name=name, region=region, endpoint=endpoint)

    def say(text: str) -> None:
        if not asked.quiet:
            show.remark(show.clean(text))

    def prepare(settings: Settings) -> None:
        from meshpeer.app.enrolment import enrol

        enrol(options, settings, say)

    run_node(asked, settings, prepare, detach=detach)


def up(
    asked: Asked,
    detach: shared.Detach = False,
    backend: shared.Backend = None,
    interface: shared.Interface = None,
    listen_port: shared.ListenPort = None,
    control_port: shared.ControlPort = None,
    web_port: shared.WebPort = None,
    slots: shared.Slots = None,
) -> None:
    """Run this machine's node again after a stop.

    Its name, addresses and keys are those that it had; no invite is needed.
    """
    from meshpeer.app.cli.running import run_node

    settings = asked.settings(
        backend=backend,
        interface=interface,
        listen_port=listen_port,
        control_port=control_port,
        web_port=web_port,
        slots=slots,
    )

    def prepare(settings: Settings) -> None:
        from meshpeer.app.state import load_state

        load_state(settings.state_dir)

    run_node(asked, settings, prepare, detach=detach)


def down(asked: Asked) -> None:
    """Stop the agent and take its interface down.

    The node stays a member: `meshpeer up` brings it back. Without a running agent, an interface that it
    left up is taken down all the same.
    """
    settings = asked.settings()
    try:
        said = asked.client(settings).stop(take_down=True)
        await_end(settings)
    except NotRunning:
        if not _take_down(settings):
            raise
        said = f"no agent was running; the interface {settings.file.wireguard.interface} is down"
    _say(asked, said, "`meshpeer up` brings this node back; `meshpeer leave` is for good")


def stop(asked: Asked) -> None:
    """Stop the agent; tunnels stay up.

    Traffic goes on as it is configured now; jobs wait until the agent runs again.
    """
    settings = asked.settings()
    said = asked.client(settings).stop(take_down=False)
    await_end(settings)
    _say(asked, said, "`meshpeer up` runs this node again")


def leave(
    asked: Asked,
    force: Annotated[bool, typer.Option("--force", help="Even as the mesh's last issuer.")] = False,
) -> None:
    """Leave the mesh for good.

    Tells the others, takes the interface down and makes this node's keys void. To come back it takes a
    new invite.
    """
    settings = asked.settings()
    said = asked.client(settings).leave(force=force)
    await_end(settings)
    _say(asked, said, "to join again: `meshpeer join INVITE`, with a new invite")


def await_end(settings: Settings) -> None:
    """Waits until the agent is gone, its interface and its ports with it, so that the next command finds them
    free."""
    from meshpeer.adapters.store.lock import is_locked

    deadline = time.monotonic() + END_WAIT_S
    while is_locked(settings.state_dir) and time.monotonic() < deadline:
        time.sleep(0.05)


def _say(asked: Asked, said: str, after: str) -> None:
    if asked.json:
        show.document({"said": said})
    elif not asked.quiet:
        show.line(show.clean(said))
        show.line(f"  {after}")


def _take_down(settings: Settings) -> bool:
    """Removes an interface of this node that outlived its agent; False where there is none."""
    if not (settings.state_dir / "node.json").exists() or settings.file.wireguard.backend == "none":
        return False
    import trio

    from meshpeer.app.interface import forwarding_of, open_interface
    from meshpeer.app.state import load_mesh
    from meshpeer.core.wgconf.forwarding import NOTHING

    mesh = load_mesh(settings.state_dir)

    async def remove() -> bool:
        device = await open_interface(settings, mesh, lambda _: None)
        if await device.observe() is None:
            return False
        with contextlib.suppress(EnvironmentFault):
            await forwarding_of(settings).ensure(NOTHING)
        await device.remove()
        return True

    return trio.run(remove)
