"""The root of a mesh: list, take its key away, use it from a file, let another root follow, retire one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.signing import NEW_ENVIRONMENT, PassphraseFile, passphrase, root_of
from meshpeer.core.errors import LocalFault, NotRunning, Refused

if TYPE_CHECKING:
    from meshpeer.app.root_key import RootKey
    from meshpeer.core.identity.certificates import Authority

_EXPORT = """
Examples:
  meshpeer root export /media/usb/root.pem             asks for a passphrase, twice
  meshpeer root export root.pem --remove               and takes the key off this machine
"""
_USE = """
Examples:
  meshpeer root use root.pem                           does it open, and what is it of?
  meshpeer root use root.pem -- issuer add delta       on the node of any admin
  meshpeer root use root.pem -- revoke alpha --root
  meshpeer root use root.pem -- root rotate --to new.pem
"""
_ROTATE = """
Examples:
  meshpeer root rotate                                 the new key is kept here, too
  meshpeer root use root.pem -- root rotate --to new.pem
"""


def add_to(app: typer.Typer) -> None:
    root = group("root", "The root key of the mesh, which signs its issuers.")
    command(root, "list")(list_roots)
    command(root, "export", examples=_EXPORT)(export)
    command(root, "use", examples=_USE)(use)
    command(root, "rotate", examples=_ROTATE)(rotate)
    command(root, "retire")(retire)
    app.add_typer(root, name="root", rich_help_panel="Being in a mesh")


def list_roots(asked: Asked) -> None:
    """List the roots of the mesh, and how many members stand on each."""
    found = asked.client().roots()
    if asked.json:
        show.document(found.roots)
        return
    for one in found.roots:
        retired = f", retired at {show.moment(one.retired_at)} UTC" if one.retired_at else ""
        members = show.count(one.members, "member")
        show.line(
            f"root {one.number}: {one.id} since {one.since[:10]} until {one.until[:10]}, {members}{retired}"
        )


def export(
    asked: Asked,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file.", show_default=False)],
    remove: Annotated[bool, typer.Option("--remove", help="Then remove the key from this machine.")] = False,
    passphrase_file: PassphraseFile = "",
) -> None:
    """Write the root's key to a file, encrypted with a passphrase.

    The file holds all that `meshpeer root use` needs. Without --remove the key stays here as well. Whoever
    loses both can let no new issuer in: keep two copies, apart.
    """
    from meshpeer.app.root_key import local_root, remove_local, write_export
    from meshpeer.app.state import load_state

    settings = asked.settings()
    roots = load_state(settings.state_dir).node.roots
    with contextlib.suppress(NotRunning):
        # Roots that followed the founding one are in the journal, which the agent reads.
        roots = tuple(one.certificate for one in asked.client(settings).roots().roots)
    key = local_root(settings.state_dir, roots)
    path = Path(file).expanduser()
    if path.exists():
        raise LocalFault(f"{path} exists already", "name another file: a root's key is never overwritten")
    write_export(path, key, passphrase(passphrase_file, what=str(path), twice=True))
    if remove:
        remove_local(settings.state_dir)
    if asked.json:
        show.document({"file": str(path), "root": key.authority.id.hex(), "removed": remove})
    elif not asked.quiet:
        show.line(f"the root's key is in {path}, and opens with its passphrase")
        show.line(
            "  it is on this machine no more; make a second copy, and keep both apart"
            if remove
            else "  it is on this machine, too; once the file is safe: meshpeer root export FILE2 --remove"
        )


def use(
    asked: Asked,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="What `meshpeer root export` wrote.", show_default=False)
    ],
    rest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="A command of meshpeer.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = "",
) -> None:
    """Run one command with an exported root's key.

    The key is decrypted in the memory of that command alone. Without a command: say what the file holds.
    """
    from meshpeer.app.cli.main import run_lent
    from meshpeer.app.root_key import LENT, read_export
    from meshpeer.core.ids import key_text

    words = rest or []
    path = Path(file).expanduser()
    key = read_export(path, passphrase(passphrase_file, what=str(path)))
    if words:
        lent = LENT.set(key)
        try:
            code = run_lent([*_places(asked), *words])
        finally:
            LENT.reset(lent)
        raise typer.Exit(code)
    held = {"root": key.authority.id.hex(), "number": len(key.line), "mesh": key_text(key.mesh)}
    if asked.json:
        show.document(held)
    else:
        show.line(f"root {held['number']} of the mesh {held['mesh']}: {held['root']}")


def rotate(
    asked: Asked,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FILE", help="Write the new key there, encrypted, and not on this machine."
        ),
    ] = "",
    passphrase_file: Annotated[
        str,
        typer.Option("--new-passphrase-file", metavar="FILE", help=f"Of --to [{NEW_ENVIRONMENT}, or asked]."),
    ] = "",
) -> None:
    """Make the root that follows the present one, and let it sign every issuer anew.

    Both are believed from then on, and nobody's certificate changes. Once every member has heard of it:
    `meshpeer root retire`.
    """
    from meshpeer.app.root_key import LENT, RootKey, keep_beside, take_over, write_export
    from meshpeer.core.identity.certificates import SERIAL_BYTES, make_root
    from meshpeer.core.identity.keys import SEED_BYTES

    client = asked.client()
    found = client.roots()
    present = root_of(asked, found)
    if len(present.line) != len(found.roots):
        raise Refused(
            f"another root follows this one already: {found.roots[-1].id}",
            "use the key of that one; a root has one follower",
        )
    if LENT.get() is not None and not to:
        raise LocalFault("the new key needs a file, too", "say --to FILE: it gets a passphrase of its own")
    now = int(time.time())
    made = make_root(
        os.urandom(SEED_BYTES), now_unix_s=now, serial=os.urandom(SERIAL_BYTES), above=present.authority
    )
    key = RootKey(made.seed, (*present.line, made.certificate))
    state_dir, kept = asked.settings().state_dir, None
    if to:
        secret = passphrase(passphrase_file, what=to, variable=NEW_ENVIRONMENT, twice=True)
        write_export(Path(to).expanduser(), key, secret)
    else:
        kept = keep_beside(state_dir, made)
    issuers = tuple(_signed_anew(made, one, now) for one in found.issuers)
    client.add_signed((made.certificate, *issuers))
    if kept is not None:
        take_over(state_dir, present.authority, kept)
    if asked.json:
        show.document({"root": made.id.hex(), "number": len(key.line), "issuers": len(issuers), "file": to})
    elif not asked.quiet:
        show.line(
            f"root {len(key.line)} is {made.id.hex()}; it signed {show.count(len(issuers), 'issuer')} anew"
        )
        where = to or "the keys folder of this node"
        show.line(f"  its key is in {where}; both roots are believed now")
        show.line("  once all members were up (`meshpeer peers`): meshpeer root retire")


def retire(
    asked: Asked,
    root: Annotated[
        str,
        typer.Argument(metavar="[ROOT]", help="Its 16 digits [the one before the last].", show_default=False),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Even where members stand on it alone.")] = False,
) -> None:
    """Believe a root no more that another has followed; takes the key of that one.

    Revocations that stand on it are signed anew. A node that is away meanwhile comes back all the same: it
    is shown the line of roots first.
    """
    from meshpeer.core.records.envelope import sign_body

    client = asked.client()
    key: RootKey = root_of(asked, client.roots())
    plan = client.retirement(root, key.signing.public)
    if plan.members and not force:
        raise Refused(
            f"{', '.join(plan.members[:5])} would be out: nobody signed their issuer anew",
            "`meshpeer issuer add` with the new root signs an issuer anew; or retire it with --force",
        )
    client.add_signed(statements=tuple(sign_body(key.signing, key.mesh, one) for one in plan.to_sign))
    if asked.json:
        show.document(plan)
    elif not asked.quiet:
        show.line(f"the root {plan.root} is retired")
        if plan.kept:
            show.line(f"  {show.count(plan.kept, 'revocation')} signed anew")
        show.line("  its key is of no use any more: delete it, and its files")


def _signed_anew(root: Authority, issuer: bytes, now: int) -> bytes:
    from meshpeer.core.identity.certificates import (
        SERIAL_BYTES,
        certify_issuer,
        constraints_of,
        public_key_of,
    )
    from meshpeer.core.identity.constraints import known

    before = constraints_of(issuer)
    return certify_issuer(
        root,
        public_key_of(issuer),
        capabilities=known(before.capabilities),
        holder=before.holder,
        now_unix_s=now,
        serial=os.urandom(SERIAL_BYTES),
    )


def _places(asked: Asked) -> list[str]:
    """Returns the global options for the command that runs with the key."""
    words = [
        word
        for option, value in (
            ("--state-dir", asked.state_dir),
            ("--run-dir", asked.run_dir),
            ("--config", asked.config),
        )
        if value
        for word in (option, value)
    ]
    return words + ["--json"] * asked.json + ["--quiet"] * asked.quiet + ["--debug"] * asked.debug
