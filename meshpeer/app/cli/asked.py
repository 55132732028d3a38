"""What every command may be asked besides its own options: where things are, and how to answer.

These options stand before the command or after it, alike: ``meshpeer --json status`` and ``meshpeer
status --json``. For paths the nearest to the command wins; flags add up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.app.config import Settings

GLOBAL = "Global options"
NODE = "This machine's node"

StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="Keys, journal and files [/var/lib/meshpeer].",
        rich_help_panel=GLOBAL,
    ),
]
RunDir = Annotated[
    str | None,
    typer.Option(
        "--run-dir", metavar="DIR", help="The control socket [/run/meshpeer].", rich_help_panel=GLOBAL
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings [/etc/meshpeer/meshpeer.toml].", rich_help_panel=GLOBAL
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.", rich_help_panel=GLOBAL)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone.", rich_help_panel=GLOBAL)]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Say more, and where the time went.",
        rich_help_panel=GLOBAL,
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=GLOBAL)
]

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="KIND",
        help="auto, kernel, userspace or none (no tunnels, no root).",
        rich_help_panel=NODE,
    ),
]
Interface = Annotated[
    str | None,
    typer.Option("--interface", metavar="NAME", help="The WireGuard interface [wg0].", rich_help_panel=NODE),
]
ListenPort = Annotated[
    str | None,
    typer.Option(
        "--listen-port",
        metavar="PORT",
        help="WireGuard's, UDP [51820]; 0 picks a free one.",
        rich_help_panel=NODE,
    ),
]
ControlPort = Annotated[
    str | None,
    typer.Option(
        "--control-port",
        metavar="PORT",
        help="Of the links, TCP [51821]; 0 picks a free one.",
        rich_help_panel=NODE,
    ),
]
WebPort = Annotated[
    str | None,
    typer.Option(
        "--web-port",
        metavar="PORT",
        help="Of this machine's own pages, TCP [51822]; 0 for none.",
        rich_help_panel=NODE,
    ),
]
Slots = Annotated[
    str | None,
    typer.Option("--slots", metavar="N", help="Tasks of one cpu at once [processors].", rich_help_panel=NODE),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        "-d",
        help="Return once the node is ready; it runs on in the background.",
        rich_help_panel=NODE,
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The global options of one call of the program."""

    state_dir: str | None = None
    run_dir: str | None = None
    config: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False

    def with_nearer(self, nearer: Asked) -> Asked:
        """Returns these options with those that stand nearer to the command."""
        return Asked(
            state_dir=nearer.state_dir if nearer.state_dir is not None else self.state_dir,
            run_dir=nearer.run_dir if nearer.run_dir is not None else self.run_dir,
            config=nearer.config if nearer.config is not None else self.config,
            json=self.json or nearer.json,
            quiet=self.quiet or nearer.quiet,
            verbose=self.verbose + nearer.verbose,
            debug=self.debug or nearer.debug,
        )

    def settings(self, **flags: str | None) -> Settings:
        """Reads this machine's settings; ``flags`` are the command's own. Raises ``LocalFault``."""
        from meshpeer.app.config import load_settings

        return load_settings(
            {"state_dir": self.state_dir, "run_dir": self.run_dir, "config": self.config, **flags}, os.environ
        )

    def client(self, settings: Settings | None = None) -> ControlClient:
        """Returns a client of this machine's agent; nobody is asked yet."""
        from meshpeer.adapters.control.client import ControlClient

        settings = settings or self.settings()
        if (settings.state_dir / "node.json").exists():
            hint = "start it with `meshpeer up`"
        else:
            hint = "found a mesh with `meshpeer init`, or join one with `meshpeer join INVITE`"
        return ControlClient(settings.socket, absent_hint=hint)
