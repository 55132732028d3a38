"""Values of a command line that need no conversion, and so need not wait for the library that converts.

typer converts every value with pydantic, which takes as long to load as a whole command to run. Most values
are what they should be already: text that shall be text, a flag, an option that nobody gave. Those are taken
as they are; all else goes the library's own way, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args, get_origin


def spare_conversions(parameters: Iterable[object]) -> None:
    """Has these parameters take values that are plain already; with another typer nothing changes."""
    for parameter in parameters:
        described = getattr(parameter, "type_descriptor", None)
        info = getattr(described, "parameter_info", None)
        convert = getattr(parameter, "process_value", None)
        if described is None or info is None or convert is None or "process_value" in vars(parameter):
            continue
        if getattr(info, "parser", None) is None:
            vars(parameter)["process_value"] = _sparing(parameter, described.annotation, convert)


def _sparing(
    parameter: object, annotation: object, convert: Callable[[object, object], object]
) -> Callable[[object, object], object]:
    many = getattr(parameter, "multiple", False) or getattr(parameter, "nargs", 1) == -1
    required = getattr(parameter, "required", False)
    callback = getattr(parameter, "callback", None)
    least, most = (getattr(parameter, name, None) for name in ("min", "max"))

    def is_plain(value: object) -> bool:
        if many:
            return isinstance(value, list | tuple) and bool(value) and _are_texts(annotation, value)
        if value is None:
            return not required
        if isinstance(value, int) and not (
            (least is None or least <= value) and (most is None or value <= most)
        ):
            return False
        return type(value) is annotation and annotation in (str, bool, int)

    def process(ctx: object, value: object) -> object:
        if not is_plain(value):
            return convert(ctx, value)
        if isinstance(value, tuple):
            value = list(value)
        return callback(ctx, parameter, value) if callback is not None else value

    return process


def _are_texts(annotation: object, values: Iterable[object]) -> bool:
    return (
        get_origin(annotation) is list
        and get_args(annotation) == (str,)
        and all(type(one) is str for one in values)
    )
