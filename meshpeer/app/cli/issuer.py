"""Issuers: who admits and renews members, and how another member becomes one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli import show
from meshpeer.app.cli.asked import Asked
from meshpeer.app.cli.commands import command, group
from meshpeer.app.cli.signing import read_paper, root_of
from meshpeer.core.errors import LocalFault, PeerFault, Refused

if TYPE_CHECKING:
    from meshpeer.app.root_key import RootKey
    from meshpeer.runtime.control import IssuerInfo

_ADD = """
Examples:
  meshpeer issuer add delta                  where the root key is: on the founder
  meshpeer root use root.pem -- issuer add delta   with its file, on the node of any admin
  meshpeer issuer add --request delta.txt    what "meshpeer issuer request" printed there
"""
_SIGN = """
Examples, of a root that is on a machine without a network:
  meshpeer issuer request > request.txt                            on delta
  meshpeer root use root.pem -- issuer sign request.txt > signed.txt    on that machine
  meshpeer issuer accept signed.txt                                on delta, or any member
"""


def add_to(app: typer.Typer) -> None:
    issuer = group("issuer", "Who admits members and renews their certificates.")
    command(issuer, "list")(list_issuers)
    command(issuer, "add", examples=_ADD)(add)
    command(issuer, "request")(request)
    command(issuer, "sign", examples=_SIGN)(sign)
    command(issuer, "accept")(accept)
    app.add_typer(issuer, name="issuer", rich_help_panel="Being in a mesh")


def list_issuers(asked: Asked) -> None:
    """List the issuers: since when, until when, when they were heard of, and how many they admitted."""
    found = asked.client().issuers()
    if asked.json:
        show.document(found)
        return
    for one in found:
        show.line(show.clean((one.node or one.id) if asked.quiet else issuer_line(one)))
    if not found and not asked.quiet:
        show.line("Nobody is known to be an issuer.")


def add(
    asked: Asked,
    node: Annotated[
        str, typer.Argument(metavar="[NODE]", help="A member that is up.", show_default=False)
    ] = "",
    request: Annotated[
        str,
        typer.Option("--request", metavar="FILE", help="What it printed, - for standard input; or ask it."),
    ] = "",
) -> None:
    """Make a member an issuer; one that is one gets a certificate that lasts anew.

    The member makes its own key, which never leaves it. It is signed here, with the root's key: that must be
    on this machine, or lent by `meshpeer root use`.
    """
    client = asked.client()
    if bool(node) == bool(request):
        raise LocalFault(
            "name a member, or give its request", "`meshpeer issuer add NODE`, or --request FILE"
        )
    found = client.roots()
    root = root_of(asked, found)
    if request:
        from meshpeer.app.papers import decode_request

        body, chain = decode_request(read_paper(request))
    else:
        shown = client.issuer_key(node)
        body, chain = shown.request, shown.chain
    holder, certificate = _signed(root, body, chain, tuple(one.certificate for one in found.roots))
    client.add_signed((certificate,))
    made = next((one for one in client.issuers() if one.id == _id_of(certificate)), None)
    if asked.json:
        show.document(made)
    elif not asked.quiet:
        who = made.node if made and made.node else node or holder
        show.line(show.clean(f"{who} is an issuer" + (f" until {made.until[:10]}" if made else "")))
        show.line("  it admits and renews by itself from now on; `meshpeer issuer list` lists all")


def request(asked: Asked) -> None:
    """Print what a root is to sign so that this node is an issuer.

    Makes the issuer's key where there is none. The line is no secret: carry it to where the root's key is.
    """
    from meshpeer.app.papers import encode_request

    shown = asked.client().issuer_key("")
    text = encode_request(shown.request, shown.chain)
    if asked.json:
        show.document({"request": text, "node": shown.node})
        return
    show.line(text)
    if not asked.quiet:
        show.remark(
            "Where the root's key is: meshpeer issuer add --request FILE; or on a machine without a network: "
            "meshpeer root use ROOT -- issuer sign FILE"
        )


def sign(
    asked: Asked,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="What `meshpeer issuer request` printed.", show_default=False),
    ],
) -> None:
    """Sign a request with a lent root's key, on a machine that is in no mesh.

    Prints one line, no secret, which `meshpeer issuer accept` takes on any member.
    """
    from meshpeer.app.papers import decode_request, encode_signed
    from meshpeer.app.root_key import LENT

    root = LENT.get()
    if root is None:
        raise LocalFault(
            "no root's key is lent to this command", "meshpeer root use ROOT -- issuer sign FILE"
        )
    body, chain = decode_request(read_paper(source))
    holder, certificate = _signed(root, body, chain, root.line)
    text = encode_signed((*root.line[1:], certificate))
    if asked.json:
        show.document({"signed": text, "node": holder})
        return
    show.line(text)
    if not asked.quiet:
        show.remark(f"Signed for the node {holder[:10]}. On it, or any member: meshpeer issuer accept FILE")


def accept(
    asked: Asked,
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="What `meshpeer issuer sign` printed.", show_default=False)
    ],
) -> None:
    """Spread what a root signed elsewhere."""
    from meshpeer.app.papers import decode_signed

    client = asked.client()
    certificates = decode_signed(read_paper(source))
    client.add_signed(certificates)
    ids = {_id_of(one) for one in certificates}
    made = [one for one in client.issuers() if one.id in ids]
    if asked.json:
        show.document(made)
    elif not asked.quiet:
        for one in made:
            show.line(show.clean(f"{one.node or one.id} is an issuer until {one.until[:10]}"))


def issuer_line(one: IssuerInfo) -> str:
    """Returns one line of the list."""
    heard = (
        "left the mesh"
        if one.left
        else "up"
        if one.alive
        else f"heard of at {show.moment(one.heard_at)} UTC"
        if one.heard_at
        else "not heard of"
    )
    who = (one.node or "nobody says who") + (" (this node)" if one.me else "")
    return (
        f"{who}: issuer {one.id} since {one.since[:10]} until {one.until[:10]}, "
        f"signed {show.count(one.issued, 'member')}, {heard}"
    )


def _signed(
    root: RootKey, request: bytes, chain: tuple[bytes, ...], roots: tuple[bytes, ...]
) -> tuple[str, bytes]:
    """Checks a request and signs it; returns the id of the node that asked, and the certificate."""
    from meshpeer.app.papers import check_request
    from meshpeer.core.identity.certificates import SERIAL_BYTES, certify_issuer
    from meshpeer.core.ids import key_text

    now = int(time.time())
    try:
        asks = check_request(request, chain, roots=roots, mesh=root.mesh, now_unix_s=now)
    except PeerFault as fault:
        raise Refused(
            f"this request can't be signed: {fault.what}", "make a new one: `meshpeer issuer request` there"
        ) from fault
    certificate = certify_issuer(
        root.authority, asks.public, holder=asks.node, now_unix_s=now, serial=os.urandom(SERIAL_BYTES)
    )
    return key_text(asks.node), certificate


def _id_of(certificate: bytes) -> str:
    from meshpeer.core.identity.certificates import invite_id_of

    return invite_id_of(certificate).hex()
