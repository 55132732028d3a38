"""What commands that need the root's key share: where it is, and how its passphrase is asked for.

A passphrase comes from a file, from the environment, or is typed; never from an argument, which every user of
the machine can read.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshpeer.app.cli.asked import Asked
from meshpeer.core.errors import LocalFault

if TYPE_CHECKING:
    from meshpeer.app.root_key import RootKey
    from meshpeer.runtime.control import Roots

PASSPHRASE_BYTES_MAX = 4_096
ENVIRONMENT = "MESHPEER_ROOT_PASSPHRASE"
NEW_ENVIRONMENT = "MESHPEER_NEW_ROOT_PASSPHRASE"

PassphraseFile = Annotated[
    str,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help=f"Its first line is the passphrase [{ENVIRONMENT}, or asked]; - for standard input.",
        show_default=False,
    ),
]


def passphrase(file: str, *, what: str, variable: str = ENVIRONMENT, twice: bool = False) -> str:
    """Returns a passphrase from a file, the environment or the terminal; raises ``LocalFault``."""
    if file:
        return _first_line(file)
    if variable in os.environ:
        return os.environ[variable]
    if not sys.stdin.isatty():
        raise LocalFault(
            f"the passphrase of {what} is asked on a terminal, and there is none",
            f"give --passphrase-file FILE, or set {variable}",
        )
    typed = getpass.getpass(f"Passphrase of {what}: ")
    if twice and getpass.getpass("The same again: ") != typed:
        raise LocalFault("the two are not the same", "type it again; nothing was written")
    return typed


def root_of(asked: Asked, found: Roots) -> RootKey:
    """Returns the root's key: the one that ``meshpeer root use`` lends, or the one on this machine."""
    from meshpeer.app.root_key import LENT, local_root, with_line

    roots = tuple(one.certificate for one in found.roots)
    lent = LENT.get()
    if lent is not None:
        return with_line(lent.seed, roots)
    return local_root(asked.settings().state_dir, roots)


def read_paper(source: str) -> str:
    """Returns the text of a file, of standard input, or the text itself where it is none."""
    if source == "-":
        return sys.stdin.read(65_536)
    try:
        path = Path(source).expanduser()
        if path.is_file():
            with path.open("rb") as file:
                return file.read(65_536).decode("utf-8", "replace")
    except OSError as error:
        raise LocalFault(f"{source} can't be read: {error.strerror}", "check its path and owner") from error
    except ValueError:
        return source
    return source


def _first_line(file: str) -> str:
    if file == "-":
        text = sys.stdin.readline(PASSPHRASE_BYTES_MAX)
    else:
        try:
            with Path(file).expanduser().open("r", encoding="utf-8") as opened:
                text = opened.readline(PASSPHRASE_BYTES_MAX)
        except (OSError, UnicodeDecodeError) as error:
            raise LocalFault(
                f"the passphrase's file {file} can't be read: {error}", "check its path and owner"
            ) from error
    return text.rstrip("\r\n")
