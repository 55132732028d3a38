"""Fuzzes targets for as long, or for as many cases, as one asks: what ``scripts/fuzz`` runs.

Each target has its turns, all of one length, each in a process of its own: what a target does to its process
(a hang, a crash of the interpreter, memory) ends with it, and is shown. With atheris a turn is led by
coverage, and what it found is where the next turn starts: one that knows the structure of a case, then one
that knows bytes alone. Without it cases are drawn from the seeds.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import importlib.util
import mmap
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fuzzkit.target import Mutator, all_seeds, run_case  # noqa: E402

RSS_MB_MAX = 1_024
"""Of a process, libFuzzer's own tables and corpus included: beyond it, memory is taken to be unbounded."""
CASE_S_MAX = 25
"""By the clock, for what no check in Python interrupts: a loop in C."""
GRACE_S = 300.0
"""By the clock, for a turn's start and end: a busy machine takes a minute to load what coverage watches."""
_COUNTS = struct.Struct("=QQ")


@dataclass(slots=True)
class Tally:
    """What became of one target so far."""

    cases: int = 0
    refused: int = 0
    spent_s: float = 0.0
    rss_mb: int = 0
    faults: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    asked = _options().parse_args(arguments)
    if asked.turn:
        return _take_turn(asked.turn, asked, Path(asked.work))
    from fuzzkit.table import TARGETS

    names = [name for name in TARGETS if not asked.target or any(map(name.startswith, asked.target))]
    if asked.list or not names:
        print("\n".join(TARGETS))
        return 0 if asked.list else 2
    plain = asked.plain or importlib.util.find_spec("atheris") is None
    print(
        "without atheris: cases are drawn from the seeds alone" if plain else "with atheris, led by coverage"
    )
    with tempfile.TemporaryDirectory(prefix="mp-fuzz.") as work:
        tallies = _run(names, asked, Path(work), plain=plain)
    return _show(tallies)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Fuzzes decoders of what others wrote."
    )
    options.add_argument(
        "--target", action="append", metavar="NAME", help="only those that begin so (repeatable)"
    )
    options.add_argument("--cases", type=int, default=200_000, help="in all [200000]")
    options.add_argument("--seconds", type=float, default=86_400.0, help="in all, at most [a day]")
    options.add_argument("--slice", type=float, default=20.0, metavar="S", help="one turn of a target [20]")
    options.add_argument("--jobs", type=int, default=1, help="targets at once [1]")
    options.add_argument("--seed", type=int, default=1, help="of the first turn [1]")
    options.add_argument("--plain", action="store_true", help="without atheris")
    options.add_argument("--list", action="store_true", help="name the targets")
    options.add_argument(
        "--findings", default=str(HERE / "findings"), metavar="DIR", help="where crashers go"
    )
    options.add_argument("--turn", help=argparse.SUPPRESS)
    options.add_argument("--work", help=argparse.SUPPRESS)
    return options


# --- all targets --------------------------------------------------------------------------------------------


def _run(names: list[str], asked: argparse.Namespace, work: Path, *, plain: bool) -> dict[str, Tally]:
    tallies = {name: Tally() for name in names}
    ends_at = time.monotonic() + asked.seconds
    turn = 0
    while True:
        going = [name for name in names if not tallies[name].faults]
        with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
            for name in going:
                pool.submit(_turn, name, tallies, asked, work, asked.seed + turn, ends_at, plain)
        turn += 1
        done = sum(one.cases for one in tallies.values())
        print(f"turn {turn}: {done:,} cases", flush=True)
        if done >= asked.cases or time.monotonic() >= ends_at or not going:
            return tallies


def _turn(
    name: str,
    tallies: dict[str, Tally],
    asked: argparse.Namespace,
    work: Path,
    seed: int,
    ends_at: float,
    plain: bool,
) -> None:
    left_s = min(asked.slice, ends_at - time.monotonic())
    if left_s <= 0 or sum(one.cases for one in tallies.values()) >= asked.cases:
        return
    folder = work / name
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--turn", name, "--seconds", str(left_s), "--work", str(folder)]
    # No more than an even share in one turn: what refuses most cases at a glance would make up all of them.
    command += ["--cases", str(max(1, asked.cases // len(tallies)))]
    command += ["--seed", str(seed), *(["--plain"] if plain else [])]
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            code = child.wait(left_s + GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = -1
    tally = tallies[name]
    cases, refused, rss_mb = _read_counts(folder)
    tally.cases += cases
    tally.refused += refused
    tally.spent_s += time.monotonic() - began
    tally.rss_mb = max(tally.rss_mb, rss_mb)
    if code != 0:
        tally.faults.append(_fault(name, folder, code, Path(asked.findings)))


def _fault(name: str, folder: Path, code: int, findings: Path) -> str:
    """Returns what is known of a turn that ended badly, and keeps the case that ended it."""
    kept = []
    for case in sorted((folder / "bad").glob("*")):
        place = findings / name / case.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(case.read_bytes())
        kept.append(str(place))
    said = (folder / "log").read_text("utf-8", "replace")[-3_000:]
    return f"exit code {code}; kept: {', '.join(kept) or 'nothing'}\n{said}"


def _show(tallies: dict[str, Tally]) -> int:
    print(f"{'target':24} {'cases':>11} {'refused':>8} {'cases/s':>8} {'peak MiB':>8}")
    for name, one in tallies.items():
        share = f"{one.refused / one.cases:.0%}" if one.cases else "-"
        rate = one.cases / one.spent_s if one.spent_s else 0.0
        print(f"{name:24} {one.cases:11,} {share:>8} {rate:8,.0f} {one.rss_mb:8}")
    bad = {name: one for name, one in tallies.items() if one.faults}
    print(f"{'all':24} {sum(one.cases for one in tallies.values()):11,}; {len(bad)} of {len(tallies)} failed")
    for name, one in bad.items():
        print(f"\n{name}: {one.faults[0]}")
    return 1 if bad else 0


# --- one turn of one target ---------------------------------------------------------------------------------


def _take_turn(name: str, asked: argparse.Namespace, folder: Path) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    (folder / "bad").mkdir(exist_ok=True)
    (folder / "found").mkdir(exist_ok=True)
    return (_draw if asked.plain else _lead)(name, asked.seconds, asked.cases, folder, asked.seed)


def _draw(name: str, seconds: float, cases: int, folder: Path, seed: int) -> int:
    """Runs cases that are drawn from the seeds, each changed once or a few times."""
    from fuzzkit.mutate import plain
    from fuzzkit.table import TARGETS

    target, dice, count = TARGETS[name], random.Random(seed), _Count(folder)
    mutate, seeds = target.mutate or plain, all_seeds(target)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at and cases > 0:
        for _ in range(min(50, cases)):
            cases -= 1
            case = dice.choice(seeds)
            for _ in range(dice.choice((1, 1, 2, 4))):
                case = mutate(case, target.bytes_max, dice)
            try:
                count.add(run_case(target, case))
            except BaseException:
                (folder / "bad" / hashlib.sha256(case).hexdigest()[:16]).write_bytes(case)
                raise
    return 0


def _lead(name: str, seconds: float, cases: int, folder: Path, seed: int) -> int:
    """Lets libFuzzer choose the cases, by what they reach; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["meshpeer"]):
        from fuzzkit.table import TARGETS

    target, count = TARGETS[name], _Count(folder)
    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True)
    for case in all_seeds(target):
        (seeds / hashlib.sha256(case).hexdigest()[:16]).write_bytes(case)

    def one(data: bytes) -> None:
        count.add(run_case(target, data))

    flags = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-runs={cases}",
        f"-max_len={target.bytes_max}",
        f"-timeout={CASE_S_MAX}",
        f"-rss_limit_mb={RSS_MB_MAX}",
        f"-artifact_prefix={folder / 'bad'}/",
        f"-seed={seed}",
        "-print_final_stats=1",
    ]
    places = [str(folder / "found"), str(seeds)]
    options = {}
    if target.mutate is not None and seed % 2:
        options["custom_mutator"] = functools.partial(_mutate, target.mutate)
    atheris.Setup([name, *flags, *places], one, **options)
    atheris.Fuzz()
    return 0


def _mutate(mutate: Mutator, data: bytes, bytes_max: int, seed: int) -> bytes:
    return mutate(data, bytes_max, random.Random(seed))


class _Count:
    """Counts cases where the parent reads them, however this process ends."""

    def __init__(self, folder: Path) -> None:
        with (folder / "counts").open("wb+") as file:
            file.write(bytes(_COUNTS.size + 8))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _COUNTS.size + 8)
        self._cases = self._refused = 0

    def add(self, refused: bool) -> None:
        self._cases += 1
        self._refused += refused
        _COUNTS.pack_into(self._map, 0, self._cases, self._refused)
        if self._cases % 1_024 == 1:
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            struct.pack_into("=Q", self._map, _COUNTS.size, peak_mb)


def _read_counts(folder: Path) -> tuple[int, int, int]:
    """Returns cases, those that were refused, and the process's largest size in MiB."""
    try:
        cases, refused, rss_mb = struct.unpack("=QQQ", (folder / "counts").read_bytes())
    except (OSError, struct.error):
        return 0, 0, 0
    return cases, refused, rss_mb


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main(sys.argv[1:]))
