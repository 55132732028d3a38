#!/usr/bin/env python3
"""Makes a Debian package of a wheel, with the Python packages that it needs, as constraints.txt pins them.

scripts/packaging/deb.py WHEEL FOLDER    meshpeer_VERSION_ARCHITECTURE.deb into the folder

They stand in /usr/lib/meshpeer, a virtual environment of Debian's own Python of the version that runs this
(ADR 42). Nothing in it is meant to depend on when or where it is made: its times are SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(CHECKOUT))

from meshpeer.app.service_plan import plan_packaged
from meshpeer.app.service_units import render_units

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PREFIX = Path("usr/lib/meshpeer")
SITE = PREFIX / "lib" / PYTHON / "site-packages"
PROGRAM = f"""#!/{PREFIX}/bin/python -I
import sys

from meshpeer.app.cli.main import main

sys.exit(main())
"""
LEFT_OUT = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""What pip notes about an installation: paths of the machine that built, and what only pip reads."""
DEPENDS = ("python3 (>= 3.11)", "wireguard-tools", "nftables", "iproute2", "iputils-ping")


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    wheel, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if "SOURCE_DATE_EPOCH" not in os.environ:
        sys.exit(
            "deb: SOURCE_DATE_EPOCH is not set\n  call scripts/package, which takes it from the last commit"
        )
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name) / "root"
        described = read_metadata(wheel)
        held = install(stage, wheel, described)
        move_shared(stage)
        write_program(stage)
        write_units(stage)
        write_docs(stage, held)
        compile_modules(stage)
        set_modes(stage)
        print(pack(stage, folder, described))


# --- Python packages ----------------------------------------------------------------------------------------


def read_metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def install(stage: Path, wheel: Path, described: Message) -> list[str]:
    """Installs the wheel and all that it needs below ``stage``; returns the names of what it needs."""
    needed = sorted(closure(described))
    pins = pinned(CHECKOUT / "constraints.txt")
    missing = [one for one in needed if one not in pins]
    if missing:
        sys.exit(f"deb: constraints.txt does not pin {', '.join(missing)}\n  run scripts/pin")
    requirements = stage.parent / "requirements.txt"
    requirements.write_text("".join(pins[one] for one in needed))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    place = ["--target", str(stage / SITE), "--no-deps", "--no-compile", "--only-binary", ":all:"]
    for what in (["--require-hashes", "-r", str(requirements)], ["--no-index", str(wheel)]):
        done = subprocess.run([*pip, *place, *what], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stderr.strip()}\ndeb: pip could not install this\n  read the lines above")
    shutil.rmtree(stage / SITE / "bin", ignore_errors=True)
    for info in (stage / SITE).glob("*.dist-info"):
        for name in LEFT_OUT:
            (info / name).unlink(missing_ok=True)
    return needed


def closure(described: Message) -> set[str]:
    """Returns the names of all packages that this one needs here, as this environment has them."""
    waiting = [Requirement(one) for one in described.get_all("Requires-Dist") or []]
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in metadata.requires(name) or []]
    return found


def pinned(constraints: Path) -> dict[str, str]:
    """Returns the entries of a file of pins, hashes and all, by name."""
    entries = re.findall(
        r"^(?:[^\s#].*\\\n(?:[ \t]+.*\n)+|[^\s#].*\n)", constraints.read_text(), re.MULTILINE
    )
    return {canonicalize_name(re.split(r"[=\[ ]", one)[0]): one for one in entries}


def compile_modules(stage: Path) -> None:
    """Compiles all modules, so that no command has to; by content, not by date, which would differ."""
    unchanging = ["--invalidation-mode", "unchecked-hash", "-s", str(stage), "-p", "/"]
    compiling = [sys.executable, "-m", "compileall", "-q", "-j", "0", *unchanging, str(SITE)]
    subprocess.run(compiling, cwd=stage, check=True)


# --- files of the package -----------------------------------------------------------------------------------


def move_shared(stage: Path) -> None:
    """Puts manual pages and completions where Debian has them."""
    share = stage / "usr/share"
    shutil.move(stage / SITE / "share", share)
    (share / "zsh/site-functions").rename(share / "zsh/vendor-completions")
    for page in sorted((share / "man/man1").iterdir()):
        compress(page.read_bytes(), page.with_suffix(".1.gz"))
        page.unlink()


def write_program(stage: Path) -> None:
    home = stage / PREFIX
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to(f"/usr/bin/{PYTHON}")
    (home / "bin/meshpeer").write_text(PROGRAM)
    (home / "bin/meshpeer").chmod(0o755)
    version = PYTHON.removeprefix("python")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/meshpeer").symlink_to("../lib/meshpeer/bin/meshpeer")


def write_units(stage: Path) -> None:
    """Writes the units, for any version of systemd, and the user that a node may run as."""
    units = stage / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for name, text in render_units(plan_packaged("/usr/bin/meshpeer"), systemd=0, packaged=True).items():
        (units / name).write_text(text)
    (stage / "usr/lib/sysusers.d").mkdir()
    (stage / "usr/lib/sysusers.d/meshpeer.conf").write_text('u meshpeer - "meshpeer" /nonexistent\n')


def write_docs(stage: Path, held: list[str]) -> None:
    docs = stage / "usr/share/doc/meshpeer"
    docs.mkdir(parents=True)
    compress((CHECKOUT / "CHANGELOG.md").read_bytes(), docs / "changelog.gz")
    shutil.copytree(
        CHECKOUT / "docs/examples", docs / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    (docs / "copyright").write_text("\n".join(copyright_lines(stage, held)) + "\n")


def copyright_lines(stage: Path, held: list[str]) -> Iterator[str]:
    yield "meshpeer is under the Apache License, version 2.0: /usr/share/common-licenses/Apache-2.0"
    yield ""
    yield f"/{SITE} holds these packages of others, each with its licence:"
    for one in metadata.distributions(path=[str(stage / SITE)]):
        name = canonicalize_name(one.metadata["Name"])
        if name in held:
            text = str(
                one.metadata.get("License-Expression") or one.metadata.get("License") or ""
            ).splitlines()
            yield f"  {name} {one.version}: {text[0] if text else 'see its files'}"
            yield from (f"    /{file.relative_to(stage)}" for file in licences(stage, one))


def licences(stage: Path, one: metadata.Distribution) -> list[Path]:
    """Returns the files of its licences, which stand beside its metadata."""
    folders = (stage / SITE).glob("*.dist-info")
    mine = [
        path
        for path in folders
        if path.name.lower().startswith(one.metadata["Name"].replace("-", "_").lower() + "-")
    ]
    named = re.compile("(?i)licen[cs]e|copying|notice")
    return sorted(
        file for path in mine for file in path.rglob("*") if file.is_file() and named.match(file.name)
    )


def compress(data: bytes, to: Path) -> None:
    with open(to, "wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(data)


def set_modes(stage: Path) -> None:
    for path in sorted(stage.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if runs else 0o644)
    stage.chmod(0o755)


# --- the package --------------------------------------------------------------------------------------------


def pack(stage: Path, folder: Path, described: Message) -> Path:
    files = [path for path in sorted(stage.rglob("*")) if path.is_file() and not path.is_symlink()]
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(stage)}" for path in files]
    control = stage / "DEBIAN"
    control.mkdir()
    architecture = ask("dpkg", "--print-architecture")
    size_kib = sum(-(-path.stat().st_size // 1024) for path in files)
    (control / "control").write_text(
        f"Package: meshpeer\n"
        f"Version: {described['Version']}\n"
        f"Architecture: {architecture}\n"
        f"Maintainer: The meshpeer contributors <meshpeer@localhost>\n"
        f"Installed-Size: {size_kib}\n"
        f"Depends: {', '.join((PYTHON, f'libc6 (>= {libc(stage)})', *DEPENDS))}\n"
        f"Recommends: wireguard-go\n"
        f"Section: net\n"
        f"Priority: optional\n"
        f"Description: private WireGuard network and job scheduler without a controller\n"
        f" One program on each of your machines makes them one private network and one\n"
        f" pool of workers. Nodes gossip signed facts, and each derives its own WireGuard\n"
        f" tunnels from them; idle nodes steal tasks from each other.\n"
        f" .\n"
        f" Nothing runs before `meshpeer init` or `meshpeer join`.\n"
    )
    (control / "md5sums").write_text("\n".join(sums) + "\n")
    for script in sorted((HERE / "debian").iterdir()):
        shutil.copyfile(script, control / script.name)
        (control / script.name).chmod(0o755)
    control.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / f"meshpeer_{described['Version']}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", stage, package],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return package


def libc(stage: Path) -> str:
    """Returns the version of the C library that the compiled parts may need, by the tags of their wheels."""
    found = [(2, 17)]
    for wheel in (stage / SITE).glob("*.dist-info/WHEEL"):
        tags = re.findall(r"manylinux_2_(\d+)_", wheel.read_text())
        if tags:
            found.append((2, min(map(int, tags))))
    return ".".join(map(str, max(found)))


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
