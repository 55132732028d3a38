"""A node's secrets as values: what its file may say, and who gets what.

A job names secrets and never holds them; each node has its own. Errors name secrets and never values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.rules import secret_name_fault, shown, text_fault

VALUE_BYTES_MIN = 8
"""A shorter value can't be told from other text, and so not be masked in what a task prints."""
VALUE_BYTES_MAX = 16 * 1024
EVERYBODY = "*"
_KEYS = ("value", "from")
_FORM = 'write NAME = "value", or a table [NAME] with value and from'


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret, and for whose jobs it is."""

    value: str = field(repr=False)
    submitters: tuple[str, ...] = (EVERYBODY,)
    """Names or ids of nodes."""


def parse_secrets(document: Mapping[str, object]) -> dict[str, Secret]:
    """Reads what a file holds; raises ``LocalFault`` that names the secret."""
    return {name: _parse_secret(name, entry) for name, entry in document.items()}


def choose_secrets(
    secrets: Mapping[str, Secret], names: Sequence[str], submitter: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """Returns names and values for a job of a submitter, who goes by any of these words; raises
    ``LocalFault``.

    One that is not there and one that is not for them are the same to them.
    """
    chosen = []
    for name in names:
        secret = secrets.get(name)
        if secret is None or not {EVERYBODY, *submitter} & {*secret.submitters}:
            raise LocalFault(
                f"this node has no secret {shown(name)} for jobs of this submitter",
                "add it to the node's secrets file",
            )
        chosen.append((name, secret.value))
    return tuple(chosen)


def _parse_secret(name: str, entry: object) -> Secret:
    fault = secret_name_fault(name)
    if fault is not None:
        raise LocalFault(f"secrets: {fault.what}", fault.hint)
    table = entry if isinstance(entry, dict) else {"value": entry}
    unknown = sorted(key for key in table if key not in _KEYS)
    value, submitters = table.get("value"), table.get("from", [EVERYBODY])
    if unknown or not isinstance(value, str):
        what = f"has an unknown key {shown(unknown[0])}" if unknown else "has no text as its value"
        raise LocalFault(f"the secret {name} {what}", _FORM)
    if not isinstance(submitters, list) or not all(isinstance(one, str) for one in submitters):
        raise LocalFault(f"the secret {name} has no list of names as its from", 'write from = ["alpha"]')
    unfit = text_fault(value, bytes_max=VALUE_BYTES_MAX)
    if unfit is not None:
        raise LocalFault(f"the secret {name} can't be given to a task: {unfit.what}", unfit.hint)
    if len(value.encode("utf-8")) < VALUE_BYTES_MIN:
        raise LocalFault(
            f"the secret {name} is shorter than {VALUE_BYTES_MIN} bytes, and could not be masked in output",
            "take a longer one",
        )
    return Secret(value=value, submitters=tuple(submitters))
