"""Mutators: how a case becomes another one that gets past the first check.

Bytes are flipped, cut and repeated anywhere. Trees (CBOR, JSON) are read, a few of their values change, and
they are written anew in the form that their decoder insists on. Texts swap lines, words and characters.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import cbor2

from fuzzkit.target import Mutator

Tree = object
_BytesOf = Callable[[bytes, random.Random], object]
_INTEGERS = (
    0,
    1,
    -1,
    2,
    23,
    24,
    255,
    256,
    65_535,
    65_536,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_TEXTS = (
    "",
    "a",
    "alpha",
    "10.10.0.1",
    "10.10.0.1/33",
    "fd00::1/64",
    "[::1]:51821",
    "192.0.2.1:51820",
    "\x00",
    "\x1b[31m",
    "é" * 9,
    "²",
    "\ud7ff\U0010ffff",
    "../../etc",
    "${index}",
    "-1",
    "9" * 40,
    "9" * 5_000,
    "a" * 300,
    "over/a/b",
    "*",
)
_DEPTH_MAX = 24
_LEAF = re.compile(r"\s+|\w+|.", re.DOTALL)


def plain(data: bytes, bytes_max: int, dice: random.Random) -> bytes:
    """Changes bytes anywhere."""
    case = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        at = dice.randrange(len(case) + 1)
        match dice.randrange(7):
            case 0 if case:
                case[at % len(case)] ^= 1 << dice.randrange(8)
            case 1 if case:
                case[at % len(case)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                case[at:at] = dice.randbytes(dice.choice((1, 2, 4, 16)))
            case 3:
                del case[at : at + dice.choice((1, 2, 4, 16, 64))]
            case 4:
                end = at + dice.randrange(1, 33)
                case[at:at] = case[at:end] * dice.choice((1, 1, 2, 20))
            case 5:
                case[at : at + 4] = dice.choice(_INTEGERS).to_bytes(9, "big", signed=True)[-4:]
            case 6:
                del case[at:]
    return bytes(case[:bytes_max])


def cbor(*, head: bytes = b"") -> Mutator:
    """Changes the tree of a message in canonical CBOR; ``head`` stands before it: a frame's channel."""

    def mutate(data: bytes, bytes_max: int, dice: random.Random) -> bytes:
        try:
            tree = cbor2.loads(data[len(head) :])
            written = head + cbor2.dumps(change(tree, dice, _nested), canonical=True)
        except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, OSError):
            return plain(data, bytes_max, dice)
        # Rarely, what was written well is spoilt: structure is checked before anything is built.
        return plain(written, bytes_max, dice) if dice.random() < 0.1 else written[:bytes_max]

    return mutate


def json_text(data: bytes, bytes_max: int, dice: random.Random) -> bytes:
    """Changes the tree of a JSON document."""
    try:
        written = json.dumps(change(json.loads(data), dice, _hex)).encode()
    except (ValueError, TypeError, RecursionError):
        return plain(data, bytes_max, dice)
    if dice.random() < 0.02:
        deep = dice.choice((20, 200, 5_000))
        written = b"[" * deep + written + b"]" * deep
    return plain(written, bytes_max, dice) if dice.random() < 0.1 else written[:bytes_max]


def text(*tokens: str) -> Mutator:
    """Changes a text: its lines, its words, and ``tokens`` put anywhere."""

    def mutate(data: bytes, bytes_max: int, dice: random.Random) -> bytes:
        if dice.random() < 0.2:
            return plain(data, bytes_max, dice)
        said = data.decode("utf-8", "replace")
        for _ in range(dice.choice((1, 1, 2, 3))):
            parts = said.splitlines(keepends=True) if dice.random() < 0.3 else _LEAF.findall(said)
            at = dice.randrange(len(parts) + 1)
            match dice.randrange(6):
                case 0:
                    del parts[at : at + dice.choice((1, 1, 3))]
                case 1:
                    parts.insert(at, dice.choice(parts or [""]) * dice.choice((1, 1, 2, 50)))
                case 2:
                    parts.insert(at, dice.choice((*tokens, *_TEXTS)))
                case 3 if at < len(parts):
                    parts[at] = dice.choice((*tokens, *_TEXTS))
                case 4 if len(parts) > 1:
                    other = dice.randrange(len(parts))
                    parts[other], parts[at % len(parts)] = parts[at % len(parts)], parts[other]
                case 5:
                    parts.insert(at, str(dice.choice(_INTEGERS)))
            said = "".join(parts)[:bytes_max]
        return said.encode("utf-8", "replace")[:bytes_max]

    return mutate


def change(tree: Tree, dice: random.Random, bytes_of: _BytesOf) -> Tree:
    """Returns the tree with a few of its values changed; ``bytes_of`` changes a string of bytes."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        tree = _change(tree, dice, bytes_of, 0)
    return tree


def _change(tree: Tree, dice: random.Random, bytes_of: _BytesOf, depth: int) -> Tree:
    # Down to some value first: changes near the root throw all else away.
    if isinstance(tree, dict) and tree and (dice.random() < 0.9):
        key = dice.choice(list(tree))
        match dice.randrange(12):
            case 0:
                return {name: value for name, value in tree.items() if name != key}
            case 1:
                return {**tree, dice.choice((*map(str, tree), "x", "")): _any(dice, depth)}
            case _:
                return {**tree, key: _change(tree[key], dice, bytes_of, depth + 1)}
    if isinstance(tree, list) and tree and (dice.random() < 0.9):
        at = dice.randrange(len(tree))
        match dice.randrange(12):
            case 0:
                return tree[:at] + tree[at + 1 :]
            case 1:
                return tree[:at] + [tree[at]] * dice.choice((2, 2, 5, 70)) + tree[at + 1 :]
            case 2:
                return [*tree[:at], _any(dice, depth), *tree[at:]]
            case _:
                return [*tree[:at], _change(tree[at], dice, bytes_of, depth + 1), *tree[at + 1 :]]
    if isinstance(tree, bytes) and dice.random() < 0.85:
        return bytes_of(tree, dice)
    if isinstance(tree, str) and dice.random() < 0.6:
        return text()(tree.encode("utf-8", "replace"), 600, dice).decode("utf-8", "replace")
    if isinstance(tree, int) and dice.random() < 0.7:
        return (
            dice.choice((tree + 1, tree - 1, -tree, *_INTEGERS)) if not isinstance(tree, bool) else not tree
        )
    return _any(dice, depth)


def _any(dice: random.Random, depth: int) -> Tree:
    match dice.randrange(8):
        case 0:
            return dice.choice((True, False, None))
        case 1:
            return dice.choice(_TEXTS)
        case 2:
            return dice.choice(_INTEGERS)
        case 3 if depth < _DEPTH_MAX:
            return [_any(dice, depth + 6) for _ in range(dice.randrange(4))]
        case 4 if depth < _DEPTH_MAX:
            return {dice.choice(_TEXTS[:6]): _any(dice, depth + 6) for _ in range(dice.randrange(3))}
        case 5:
            nest: Tree = []
            for _ in range(dice.choice((5, 14, 20))):
                nest = [nest]
            return nest
        case _:
            return dice.randrange(256)


def _nested(data: bytes, dice: random.Random) -> object:
    """Changes bytes inside CBOR: often another message (an envelope's body), else a key or a certificate."""
    if dice.random() < 0.5:
        try:
            inner = cbor2.loads(data)
            if isinstance(inner, dict | list):
                return cbor2.dumps(change(inner, dice, _nested), canonical=True)
        except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, OSError):
            pass
    return dice.choice((plain(data, 2_000, dice), bytes(len(data)), b"", data[:-1], data + b"\0"))


def _hex(data: bytes, _: random.Random) -> object:
    return data.hex()
