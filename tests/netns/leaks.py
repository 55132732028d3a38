"""Looks for keys and secrets where none may be, in every form that a program would write them in."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from meshlab import Node

from meshpeer.core.identity.keys import WireGuardPrivateKey, decode_key_file

STATE, PLACES = "/var/lib/meshpeer", ("/var/lib/meshpeer", "/run/meshpeer", "/etc/meshpeer")
_AGENT = r"meshpeer (init|join|up)\b"


def keys_of(node: Node) -> dict[str, bytes]:
    """Returns the private keys that a node's state folder holds, by the paths of their files."""
    found = {}
    for path in sorted(node.path(f"{STATE}/keys").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600, path
        found[str(path)] = decode_key_file(path.read_text(), path.stem, str(path))
    return found


def forms_of(secret: bytes) -> list[bytes]:
    """Returns what a secret looks like, raw and as text, wherever in a longer text it begins."""
    clamped = [WireGuardPrivateKey(secret).secret] if len(secret) == 32 else []
    forms = []
    for raw in (secret, *clamped):
        forms += [raw, raw.hex().encode(), raw.hex().upper().encode(), repr(raw)[2:-1].encode()]
        for encode, group in (
            (base64.b64encode, 3),
            (base64.urlsafe_b64encode, 3),
            (base64.b32encode, 5),
        ):
            for shift in range(group):
                # The first and last characters also hold bits of what stands before and behind.
                text = encode(bytes(shift) + raw).rstrip(b"=")[2 * shift + (shift > 0) : -2]
                forms += [text, text.lower()] if group == 5 else [text]
    return forms


def leaks_of(node: Node, secrets: Mapping[str, bytes], *, but: Sequence[str] = ()) -> list[str]:
    """Returns where a node shows one of the secrets (by name): files but these, logs, processes."""
    sought = {name: forms_of(secret) for name, secret in secrets.items()}
    return [
        f"{name} in {place}"
        for place, content in _all_of(node, but)
        for name, forms in sought.items()
        if any(form in content for form in forms)
    ]


def _all_of(node: Node, but: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for place in PLACES:
        top = node.path(place)
        for path in sorted(top.rglob("*")) if top.is_dir() else ():
            if path.is_file() and str(path) not in but:
                yield str(path), path.read_bytes()
    yield "its logs", node.logs().encode()
    for pid in node.pgrep("."):
        for name in ("cmdline", "environ"):
            try:
                yield f"/proc/{pid}/{name}", node.path(f"/proc/{pid}/{name}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue


def core_limits(node: Node) -> list[str]:
    """Returns how large a core file each of the node's agents may leave, as the kernel says it."""
    limits = [node.path(f"/proc/{pid}/limits").read_text().splitlines() for pid in node.pgrep(_AGENT)]
    wanted = "Max core file size"
    return [" ".join(line.split()[4:6]) for lines in limits for line in lines if line.startswith(wanted)]
