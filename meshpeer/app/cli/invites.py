"""Invites: making one, and finding the one that a join was given."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.core.errors import LocalFault

LAN = "lan"
STDIN = "-"
INVITE_FILE_BYTES_MAX = 64 * 1024
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LOOKS_LIKE_INVITE = re.compile(r"\s*[\"'`<]?meshpeer[0-9]{1,9}\.")
_AROUND = "\ufeff \t\r\n"
"""What editors leave around a line."""
_ASK = "ask a member for one: `meshpeer invite` prints it"
_EXAMPLES = """
Examples:
  meshpeer invite                                one machine, within a day
  meshpeer invite --uses 5 --expires 2h --region eu
  meshpeer invite --role storage --deny submit   may compute, may not submit jobs
  meshpeer invite --route 192.168.5.0/24         may lead to the LAN behind it
  ssh gamma sudo meshpeer join -d "$(meshpeer invite --quiet)"
"""


def add_to(app: typer.Typer) -> None:
    command(app, "invite", panel="Being in a mesh", examples=_EXAMPLES)(invite)


def invite(
    asked: Asked,
    expires: Annotated[
        str, typer.Option("--expires", metavar="DURATION", help="How long it lets in: 90s, 30m, 24h, 7d.")
    ] = "24h",
    uses: Annotated[
        int, typer.Option("--uses", metavar="N", min=1, help="How many machines it lets in.")
    ] = 1,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", metavar="ROLE", help="What they are [compute]; may be repeated.", show_default=False
        ),
    ] = None,
    region: Annotated[
        str, typer.Option("--region", metavar="REGION", help="Where they stand.", show_default=False)
    ] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="CAPABILITY", help="Let them do more; may be repeated.", show_default=False
        ),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(
            "--deny", metavar="CAPABILITY", help="Let them do less; may be repeated.", show_default=False
        ),
    ] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(
            "--route",
            metavar="CIDR",
            help="A LAN behind them that they may advertise; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print an invite: one line that lets a machine join.

    It holds the addresses of members, the mesh's fingerprint and the right to join. Whoever reads it can
    join until it is used up or expires: treat it as a password.
    """
    from meshpeer.runtime.control import InviteRequest

    request = InviteRequest(
        expires_s=duration_s(expires, "--expires"),
        uses=uses,
        roles=tuple(role) if role else InviteRequest().roles,
        region=region,
        allow=tuple(allow or ()),
        deny=tuple(deny or ()),
        routes=tuple(route or ()),
    )
    made = asked.client().invite(request)
    if asked.json:
        show.document(made)
        return
    show.line(made.invite)
    if asked.quiet:
        return
    machines = "one machine" if made.uses == 1 else f"{made.uses} machines"
    seeds = ", ".join(made.seeds) or "none"
    leads = f" May lead to {', '.join(made.routes)} ([node] advertise)." if made.routes else ""
    show.remark(
        f"For {machines} until {show.moment(made.expires_at)} UTC, as {', '.join(made.roles)}; "
        f"may {show.clean(made.may)}.{show.clean(leads)}"
    )
    show.remark(f"Seeds: {show.clean(seeds)}. Mesh {made.mesh}, fingerprint {made.fingerprint}.")
    for warning in made.warnings:
        show.remark(f"warning: {show.clean(warning)}")
    show.remark("On the other machine: sudo meshpeer join INVITE")


def resolve_seed(seed: str, invite: str) -> tuple[str, str]:
    """Returns where to join (``HOST[:PORT]``, ``lan`` or nothing for the invite's own seeds) and the
    invite's text.

    Raises ``LocalFault`` where there is no invite among what was given.
    """
    if seed and _holds_invite(seed):
        return "", _read(seed)
    if not invite:
        if not seed:
            raise LocalFault("join needs an invite", "meshpeer join INVITE, or a file that holds it; " + _ASK)
        if "/" in seed or seed == STDIN:
            raise LocalFault(f"{seed} is neither an invite nor a file that holds one", _ASK)
        raise LocalFault(
            f"joining through {seed} needs an invite, too", f"meshpeer join {seed} --invite INVITE; " + _ASK
        )
    return seed, _read(invite)


def duration_s(text: str, option: str) -> int:
    """Reads ``90s``, ``30m``, ``24h`` or ``7d``; raises ``LocalFault``."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text.strip(), re.ASCII)
    if match is None:
        raise LocalFault(f"{option} {text!r} is not a duration", "write 90s, 30m, 24h or 7d")
    return int(match[1]) * _UNITS_S[match[2]]


def _holds_invite(text: str) -> bool:
    if text == STDIN or _LOOKS_LIKE_INVITE.match(text):
        return True
    try:
        path = Path(text).expanduser()
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return (
                _LOOKS_LIKE_INVITE.match(file.read(64).decode("utf-8", "replace").lstrip("\ufeff"))
                is not None
            )
    except (OSError, ValueError, RuntimeError):
        return False


def _read(text: str) -> str:
    """Returns the invite that the text is, or that stands in the file (or on standard input) that it
    names.
    """
    if text == STDIN:
        return sys.stdin.read(INVITE_FILE_BYTES_MAX).strip(_AROUND)
    if _LOOKS_LIKE_INVITE.match(text):
        return text
    try:
        path = Path(text).expanduser()
        if path.is_file():
            with path.open("rb") as file:
                return file.read(INVITE_FILE_BYTES_MAX).decode("utf-8", "replace").strip(_AROUND)
    except OSError as error:
        raise LocalFault(
            f"the invite's file {text} can't be read: {error.strerror}", "check its owner and mode"
        ) from error
    except (ValueError, RuntimeError):
        # No name of a file: a NUL, or the home of nobody.
        return text
    return text
