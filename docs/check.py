"""Holds what the pages say against the code, so that they can't quietly come to be wrong.

Checked: every path of the checkout that a page names exists, and so does every test (`tests/FILE.py::NAME`);
so does every `meshpeer` command, and each of its options (but in the pages of what is not there yet); the
reference pages name every setting, variable, route, key of a document and metric, and no setting, route or
metric that is not there; the page on security names a test in each line of its tables of threats, and every
place where a capability is enforced.

``scripts/docs`` runs it; each finding is one line, and exit code 1.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import typer.main

from meshpeer.adapters.web.page import render
from meshpeer.adapters.web.snapshot import Snapshot
from meshpeer.app import config
from meshpeer.app.cli import map_model
from meshpeer.app.cli.main import build
from meshpeer.core.counters import Counters
from meshpeer.core.identity.enforced import ENFORCED
from meshpeer.runtime import control, doctor

DOCS = Path(__file__).resolve().parent
CHECKOUT = DOCS.parent
NOT_YET = {"limits.md", "CHANGELOG.md"}
"""Pages that name commands which do not exist."""

_PATH = re.compile(r"`((?:meshpeer|scripts|tests|docs|core|app|adapters|runtime|sim)/[\w./-]*)[`\s]")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_COMMAND = re.compile(r"(?:`|\$ |^ {4}|[(] )(?:sudo )?meshpeer ([^`\n#|]*)", re.MULTILINE)
_SETTING_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_ROUTE_ROW = re.compile(r"^\| `([A-Z]+) (/v1/[^`]*)` \|", re.MULTILINE)
_METRIC_ROW = re.compile(r"^\| `(meshpeer_\w+)` \| (.*?) \|", re.MULTILINE)
_METRIC_ON_PAGE = re.compile(r"^# HELP (meshpeer_\w+) (.*)$", re.MULTILINE)
_ROUTE_IN_CODE = re.compile(r'\("([A-Z ]+)", "(/v1/[^"]*)"')


def main() -> int:
    """Prints every finding; returns the exit code."""
    findings = [*_paths(), *_tests(), *_security(), *_commands(), *_settings(), *_control(), *_metrics()]
    for finding in findings:
        print(f"docs: {finding}", file=sys.stderr)
    return 1 if findings else 0


def _pages() -> Iterator[tuple[Path, str]]:
    own = [path for path in DOCS.rglob("*.md") if not {"_build", "_generated"} & set(path.parts)]
    for path in sorted([*own, *CHECKOUT.glob("*.md")]):
        yield path.relative_to(CHECKOUT), path.read_text("utf-8")


def _paths() -> Iterator[str]:
    for page, text in _pages():
        for match in _PATH.finditer(text):
            path = match[1]
            if "_build" in path or "_generated" in path:
                continue
            if not any((base / path).exists() for base in (CHECKOUT, CHECKOUT / "meshpeer")):
                yield f"{page}: there is no {path}"
        for match in _LINK.finditer(text):
            target = (CHECKOUT / page).parent / match[1]
            if "_generated" not in match[1] and not target.exists():
                yield f"{page}: the link to {match[1]} leads nowhere"


def _tests() -> Iterator[str]:
    for page, text in _pages():
        for path, name in _TEST.findall(text):
            file = CHECKOUT / path
            if not file.exists() or not re.search(rf"def {name}\(", file.read_text("utf-8")):
                yield f"{page}: there is no test {path}::{name}"


def _security() -> Iterator[str]:
    page = DOCS / "security.md"
    text = page.read_text("utf-8")
    tested = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            tested = False
        elif cells[-1] == "Test":
            tested = True
        elif tested and not set(line) <= set("| -") and not _TEST.search(cells[-1]):
            yield f"{page.name}: no test is named in the line: {cells[0]}"
    for place in ENFORCED:
        if f"`{place.where}`" not in text:
            yield f"{page.name}: does not name {place.where}, where {place.capability} is enforced"
        if not _is_there(place.where):
            yield f"meshpeer/core/identity/enforced.py: there is no {place.where}"


def _is_there(where: str) -> bool:
    """Says whether a dotted name below ``meshpeer`` is a function, of a module or of a class in one."""
    words = ["meshpeer", *where.split(".")]
    for length in range(len(words) - 1, 1, -1):
        try:
            found: object = importlib.import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            found = getattr(found, word, None)
        return callable(found)
    return False


def _commands() -> Iterator[str]:
    root = typer.main.get_command(build())
    for page, text in _pages():
        if page.name in NOT_YET:
            continue
        for match in _COMMAND.finditer(text):
            fault = _command_fault(root, match[1].split())
            if fault:
                yield f"{page}: meshpeer {match[1].strip()}: {fault}"


def _command_fault(root: object, words: list[str]) -> str:
    command, options = root, _options(root)
    for word in words:
        if word == "--":
            break
        inner = getattr(command, "commands", {})
        if word.startswith("-") and len(word) > 1:
            flag = word.split("=")[0].rstrip(".,;:)")
            if flag not in options and flag not in ("--help", "--version"):
                return f"no option {flag}"
        elif inner and word.isalpha() and word.islower():
            if word not in inner:
                return f"no command {word}"
            command = inner[word]
            options |= _options(command)
    return ""


def _options(command: object) -> set[str]:
    return {flag for parameter in getattr(command, "params", []) for flag in parameter.opts}


def _settings() -> Iterator[str]:
    page = DOCS / "reference" / "settings.md"
    sections = {
        title.strip(): body
        for title, _, body in (part.partition("\n") for part in page.read_text("utf-8").split("\n## ")[1:])
    }
    for section in msgspec.structs.fields(config.File):
        held = {field.encode_name for field in msgspec.structs.fields(section.type)}
        said = set(_SETTING_ROW.findall(sections.get(section.encode_name, "")))
        for name in sorted(held ^ said):
            verb = "does not name" if name in held else "names an unknown key"
            yield f"{page.name}: {verb} [{section.encode_name}] {name}"
    variables = sections.get("Variables and flags", "")
    for key in config.FLAGS:
        if f"`MESHPEER_{key.upper()}`" not in variables:
            yield f"{page.name}: does not name MESHPEER_{key.upper()}"


def _control() -> Iterator[str]:
    page = DOCS / "reference" / "control.md"
    text = page.read_text("utf-8")
    server = (CHECKOUT / "meshpeer/adapters/control/server.py").read_text("utf-8")
    served = {
        (method, path) for methods, path in _ROUTE_IN_CODE.findall(server) for method in methods.split()
    }
    said = {(method, path) for method, path in _ROUTE_ROW.findall(text)}
    for method, path in sorted(served ^ said):
        verb = "does not name" if (method, path) in served else "names an unknown route"
        yield f"{page.name}: {verb} {method} {path}"
    assert issubclass(map_model.MeshMap, control.Doc), "documents of commands are among those below"
    assert issubclass(doctor.Doctor, control.Doc), "and so are the doctor's"
    for document in control.Doc.__subclasses__():
        for field in msgspec.structs.fields(document):
            if f"`{field.encode_name}`" not in text:
                yield f"{page.name}: does not name {document.__name__}.{field.encode_name}"


def _metrics() -> Iterator[str]:
    page = DOCS / "reference" / "metrics.md"
    said = dict(_METRIC_ROW.findall(page.read_text("utf-8")))
    look = Snapshot(
        version="",
        counters=Counters(),
        members={},
        links=0,
        event_loop_lag_s=0.0,
        local_health=0,
        certificate_ends_unix_s=1.0,
        issuer_heard_unix_s=1.0,
    )
    served = dict(_METRIC_ON_PAGE.findall(render(look)[0].decode("utf-8")))
    for name in sorted(served.keys() ^ said.keys()):
        verb = "does not name" if name in served else "names an unknown metric"
        yield f"{page.name}: {verb} {name}"
    for name in sorted(served.keys() & said.keys()):
        if not said[name].startswith(served[name]):
            yield f"{page.name}: says of {name} what its help text does not: {served[name]}"


if __name__ == "__main__":
    sys.exit(main())
