"""What befalls a mesh of five while it works on jobs, drawn from a seed: who submits what, which faults come.

A plan knows no lab. Plans of several seeds are laid over each other, so that their jobs share the machines,
and the long faults of one pass while another's go on; what can't be true at once is put right there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

NAMES = ("alpha", "bravo", "charlie", "delta", "echo")
ISSUER = NAMES[0]
"""It alone lets others in, so it never loses its state."""
SLOTS = 2
TASKS = 500
ALONE = 2
"""Tasks of a job that are in no array: its first and its last."""
FAULTS_MIN, FAULTS_MAX = 2, 4
LAST_AT_S = 10.0
CRASH_LIMIT = 50
"""Chaos kills more workers than a poison task would."""
HARMED_MAX = 2
"""Nodes that are away at once. With a third, two of a job's replicas are often gone, and nothing moves."""

KINDS = ("kill", "kill", "stop", "cut", "unplug", "restart", "power", "wipe", "fill", "clock")
LASTS_S = {
    "kill": (0.0, 1.0, 7.0),
    "stop": (2.0, 17.0),
    "cut": (3.0, 8.0, 16.0),
    "unplug": (3.0, 6.0),
    "restart": (0.0, 3.0),
    "power": (0.5, 6.0),
    "wipe": (0.5, 3.0),
    "fill": (1.0, 4.0),
    "clock": (4.0, 8.0),
}
JUMPS_S = (-3600.0, -200.0, -30.0, 30.0, 200.0, 3600.0)
WORDS = {
    "kill": "kill -9 of the agent",
    "stop": "SIGSTOP of everything",
    "cut": "cut off with",
    "unplug": "unplugged",
    "restart": "meshpeer down",
    "power": "power cut",
    "wipe": "power cut, state lost",
    "fill": "disk full",
    "clock": "clock jumps by",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that befalls a node: when, counted from the submission of the jobs, and for how long."""

    at_s: float
    kind: str
    node: str
    for_s: float
    jump_s: float = 0.0
    """Of a clock."""
    side: tuple[str, ...] = ()
    """Whom a node is cut off with, from all others."""

    def words(self) -> str:
        more = f" {self.jump_s:+.0f} s" if self.jump_s else "".join(f" {one}" for one in self.side)
        what = WORDS["unplug"] if self.kind == "cut" and not self.side else WORDS[self.kind]
        return f"at {self.at_s:4.1f} s {self.node}: {what}{more}, for {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    submitter: str
    nap_s: float
    shape: str
    """``flat``, ``chain`` (each of half the tasks is needed by one of the others), or ``files`` (a chain
    whose tasks hand on a file)."""
    faults: tuple[Fault, ...]

    def words(self) -> str:
        head = f"seed {self.seed}: {self.submitter} submits {TASKS} tasks of {self.nap_s} s, {self.shape}"
        return "\n".join([head, *(f"  {fault.words()}" for fault in self.faults)])


def draw(seed: int) -> Plan:
    """Returns the plan of a seed: always the same one."""
    dice = random.Random(seed)
    victims = dice.sample(NAMES, dice.randint(FAULTS_MIN, FAULTS_MAX))
    faults = [_fault(dice, name) for name in victims]
    return Plan(
        seed=seed,
        submitter=dice.choice(NAMES),
        nap_s=dice.choice([0.01, 0.05, 0.1]),
        shape=dice.choice(["flat", "chain", "files"]),
        faults=tuple(sorted(faults, key=lambda one: one.at_s)),
    )


def laid_over(plans: Iterable[Plan]) -> list[Fault]:
    """Returns the faults of plans that run at once, in order. One node loses its state, and no other: with
    two of a job's three replicas lost for good it is meant to wait for a person."""
    faults = sorted((fault for plan in plans for fault in plan.faults), key=lambda one: one.at_s)
    wiped = False
    for number, fault in enumerate(faults):
        if fault.kind == "wipe":
            if wiped:
                faults[number] = replace(fault, kind="power")
            wiped = True
    return faults


def job_of(plan: Plan, folder: str) -> str:
    """Returns the job of a plan, whose tasks write to the folder: ``marks`` says who began and ended what
    where, and in which slot, or ``none``, which is one too many.

    A lock file stands for a slot. A killed task lets go of its own as its last process is gone, no sooner.
    """
    run = "\n".join(
        [
            "read host < /proc/sys/kernel/hostname",
            f"for slot in {' '.join(map(str, range(SLOTS)))} none; do",
            f'  exec 9>> "{folder}/slot.$host.$slot"; flock -n 9 && break',
            "done",
            f'echo "begun $MESHPEER_IDEMPOTENCY_KEY $MESHPEER_ATTEMPT $host $slot" >> {folder}/marks',
            f"sleep {nap_of(plan)}",
            f'echo "ended $MESHPEER_IDEMPOTENCY_KEY $MESHPEER_ATTEMPT $host $slot" >> {folder}/marks',
        ]
    )
    many = TASKS - ALONE
    tasks: dict[str, object] = {"first": {"run": run}}
    if plan.shape == "flat":
        tasks["work"] = {"needs": ["first"], "array": f"0-{many - 1}", "run": run}
        tasks["last"] = {"needs": ["work"], "run": run}
    else:
        array = f"0-{many // 2 - 1}"
        made = {"outputs": ["made"]} if plan.shape == "files" else {}
        make = f"{run}\nhead -c 20000 /dev/urandom > made" if made else run
        take = f"test -s made || exit 9\n{run}" if made else run
        tasks["work"] = {"needs": ["first"], "array": array, "run": make, **made}
        tasks["check"] = {"needs": ["work[index]"], "array": array, "run": take}
        tasks["last"] = {"needs": ["check"], "run": run}
    # A task that makes a file on a full disk fails by itself, and has to be run elsewhere.
    defaults = {"crash_limit": CRASH_LIMIT, "retries": 5 if plan.shape == "files" else 0}
    return msgspec.json.encode({"name": f"chaos-{plan.seed}", "defaults": defaults, "tasks": tasks}).decode()


def nap_of(plan: Plan) -> str:
    """Returns how long a task sleeps, as nothing else on its machine does: by it leftovers are told."""
    return f"{plan.nap_s}0717"


def host_of(node: str) -> str:
    """Returns the machine of a node: one that lost its state has another name once it is back."""
    return node.partition("-")[0]


def _fault(dice: random.Random, node: str) -> Fault:
    kind = dice.choice([kind for kind in KINDS if kind != "wipe" or node != ISSUER])
    side = [name for name in NAMES if name != node and dice.random() < 0.3][:1] if kind == "cut" else []
    return Fault(
        at_s=round(dice.uniform(0.2, LAST_AT_S), 1),
        kind=kind,
        node=node,
        for_s=dice.choice(LASTS_S[kind]),
        jump_s=dice.choice(JUMPS_S) if kind == "clock" else 0.0,
        side=tuple(side),
    )
