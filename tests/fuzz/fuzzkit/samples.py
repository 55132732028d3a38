"""Draws valid messages from their types: a kind of message that is added is fuzzed without a word here."""

from __future__ import annotations

import enum
import random
import types
import typing
from collections.abc import Sequence

import msgspec

_WORDS = ("", "alpha", "eu-west", "10.10.0.1", "192.0.2.1:51820", "[2001:db8::1]:51821", "compute", "full")


def samples(kind: type[msgspec.Struct], known: Sequence[bytes], count: int = 2) -> list[msgspec.Struct]:
    """Returns some messages of a kind, the same ones every time; ``known`` are ids, keys and facts that mean
    something to whoever reads them."""
    dice = random.Random(kind.__qualname__)
    return [typing.cast(msgspec.Struct, _value(kind, dice, known)) for _ in range(count)]


def _value(hint: object, dice: random.Random, known: Sequence[bytes]) -> object:
    if isinstance(hint, typing.NewType):
        return _value(hint.__supertype__, dice, known)
    if hint is int:
        return dice.choice((0, 1, 7, 51_820, 1_800_000_000))
    if hint is float:
        return dice.choice((0.0, 0.5, 25.0))
    if hint is bool:
        return dice.random() < 0.5
    if hint is bytes:
        return dice.choice(known)
    if hint is str:
        return dice.choice(_WORDS)
    if hint is type(None):
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(arguments[0], dice, known)
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(_value(arguments[0], dice, known) for _ in range(dice.randrange(1, 3)))
    if origin is tuple:
        return tuple(_value(one, dice, known) for one in arguments)
    if origin is dict:
        return {_value(arguments[0], dice, known): _value(arguments[1], dice, known)}
    if origin in (typing.Union, types.UnionType):
        return _value(dice.choice(arguments), dice, known)
    assert isinstance(hint, type), hint
    if issubclass(hint, enum.Enum):
        return dice.choice(list(hint))
    assert issubclass(hint, msgspec.Struct), hint
    hints = typing.get_type_hints(hint, include_extras=True)
    return hint(**{name: _value(hints[name], dice, known) for name in hint.__struct_fields__})
