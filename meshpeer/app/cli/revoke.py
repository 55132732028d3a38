"""Shutting out: a node, an invite or an issuer, for good and everywhere."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.adapters.control.client import ControlClient
    from meshpeer.runtime.control import RevocationInfo, RevocationMade, RevocationRequest

_REVOKE = """
Examples:
  meshpeer revoke                               who was shut out so far
  meshpeer revoke delta --reason "laptop stolen"
  meshpeer revoke INVITE --keep-members         nobody else joins with it
  meshpeer revoke 0f1e2d3c4b5a6978 --since 2026-11-01
"""


def add_to(app: typer.Typer) -> None:
    command(app, "revoke", panel="Being in a mesh", examples=_REVOKE)(revoke)


def revoke(
    asked: Asked,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[NODE|INVITE|ISSUER]",
            help="A member, an invite's line, or an id (16 digits). Without one: list.",
            show_default=False,
        ),
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="One line; every member keeps it.")
    ] = "",
    with_members: Annotated[
        bool, typer.Option("--with-members", help="Who is in by the invite or issuer goes along.")
    ] = False,
    keep_members: Annotated[
        bool, typer.Option("--keep-members", help="Who is in by it stays; nobody else comes in.")
    ] = False,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="Of an issuer: whom it admitted before stays."),
    ] = "",
    keep_invite: Annotated[
        bool, typer.Option("--keep-invite", help="Others may still join with the invite that it came with.")
    ] = False,
    keep_revocations: Annotated[
        bool, typer.Option("--keep-revocations", help="What this admin revoked itself is signed anew.")
    ] = False,
    void_revocations: Annotated[
        bool, typer.Option("--void-revocations", help="Whom this admin shut out may come back.")
    ] = False,
    root: Annotated[
        bool, typer.Option("--root", help="Sign with the root's key, which no admin can void.")
    ] = False,
) -> None:
    """Shut a node, an invite or an issuer out of the mesh for good.

    Every member closes its links and removes its tunnel within a second or two, and takes nothing of it
    ever again; its tasks run elsewhere. It can't be undone: who is to be back joins anew, with new keys.
    Only a node whose certificate allows `admin` may, as the founder does.
    """
    from meshpeer.runtime.control import RevocationRequest

    client = asked.client()
    if not target:
        _print_all(asked, client.revocations())
        return
    if with_members and keep_members:
        raise LocalFault("--with-members and --keep-members exclude each other", "say one of them")
    if keep_revocations and void_revocations:
        raise LocalFault("--keep-revocations and --void-revocations exclude each other", "say one of them")
    wanted = RevocationRequest(
        target=target,
        reason=reason,
        members="revoke" if with_members else "keep" if keep_members else "",
        since=_moment(since) if since else None,
        revocations="keep" if keep_revocations else "void" if void_revocations else "",
        keep_invite=keep_invite,
        root=root,
    )
    made = _by_lent_root(client, wanted) if root else client.revoke(wanted)
    if asked.json:
        show.document(made)
        return
    if asked.quiet:
        return
    show.line(show.clean(revocation_line(made.revocation)))
    if made.done_before:
        show.line("nothing was signed: that holds already")
    elif made.members:
        show.line(show.clean(f"out of the mesh: {', '.join(made.members)}"))
    if made.invite:
        show.line(f"nobody joins any more with the invite that it came with ({made.invite})")
    if made.kept:
        show.line(f"{show.count(made.kept, 'revocation')} of its own signed anew")
    for warning in made.warnings:
        show.remark(f"warning: {show.clean(warning)}")


def _by_lent_root(client: ControlClient, wanted: RevocationRequest) -> RevocationMade:
    """Signs here where `meshpeer root use` lends the root's key; else the agent does, with its own."""
    import msgspec

    from meshpeer.app.root_key import LENT
    from meshpeer.core.records.envelope import sign_body

    lent = LENT.get()
    if lent is None:
        return client.revoke(wanted)
    made = client.revoke(msgspec.structs.replace(wanted, root_key=lent.signing.public))
    statements = tuple(sign_body(lent.signing, lent.mesh, one) for one in made.to_sign)
    if statements:
        client.add_signed(statements=statements)
    return made


def revocation_line(one: RevocationInfo) -> str:
    """Returns one line: who was shut out, by whom, when and why."""
    what = one.name or f"{one.what} {one.id}"
    since = f", from {show.moment(one.since)} UTC on" if one.since else ""
    reason = f": {one.reason}" if one.reason else ""
    if one.what == "root":
        return f"{what} was retired by a root that followed it, at {show.moment(one.at)} UTC"
    return f"{what} was revoked by {one.by} at {show.moment(one.at)} UTC{since}{reason}"


def _print_all(asked: Asked, found: list[RevocationInfo]) -> None:
    if asked.json:
        show.document(found)
    elif not found:
        show.line("Nobody was revoked.")
    else:
        for one in found:
            show.line(show.clean(one.id if asked.quiet else revocation_line(one)))


def _moment(text: str) -> float:
    """Reads a time as RFC 3339 has it, or a date; UTC where it does not say."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise LocalFault(
            f"--since {text!r} is not a time", "write 2026-11-01 or 2026-11-01T08:00:00Z"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
