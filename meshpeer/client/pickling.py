"""From functions and arguments to bytes, and from what came back to values.

cloudpickle sends what can't be imported elsewhere by value: functions of ``__main__``, lambdas, and what they
close over. What can't be sent is an error here, at once, that names it: no task is made of it.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Final

import cloudpickle

from meshpeer.client.errors import Unpicklable
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.calls import CALLS_BYTES_MAX, encode_calls
from meshpeer.core.jobs.python import too_large

PROTOCOL: Final = 5
VERSION: Final = ".".join(map(str, sys.version_info[:2]))
"""Which Python can run what this one pickles."""
HINT: Final = "open or make it inside of the function, where it runs"
_registering = threading.Lock()

Arguments = tuple[tuple[object, ...], Mapping[str, object]]


def pickled_function(function: Callable[..., object], carry: Sequence[ModuleType] = ()) -> bytes:
    """Pickles a function; raises ``Unpicklable``, which names the variable that is the trouble."""
    if not callable(function):
        raise LocalFault(f"{function!r:.60} can't be called", "give a function")
    if inspect.iscoroutinefunction(function):
        what = f"{name_of(function)} is an async function, and a task calls plain ones"
        raise LocalFault(what, "wrap it: lambda *a: trio.run(function, *a)")
    with _by_value(carry):
        try:
            return _dumped(function)
        except Exception as error:  # whatever __reduce__ raises
            raise Unpicklable(_about_function(function, error), HINT) from error


def pickled_arguments(
    args: tuple[object, ...], kwargs: Mapping[str, object], carry: Sequence[ModuleType] = ()
) -> bytes:
    """Pickles the arguments of one call; raises ``Unpicklable``, which names the one that is the trouble."""
    try:
        with _by_value(carry):
            return _dumped((args, dict(kwargs)))
    except Exception as error:
        named = [(f"argument {n}", one) for n, one in enumerate(args, 1)]
        named += [(f"the argument {name}", one) for name, one in kwargs.items()]
        raise Unpicklable(_about(named, error) or f"the arguments can't be pickled: {error}", HINT) from error


def pickled_chunk(calls: Sequence[tuple[object, ...]], carry: Sequence[ModuleType] = ()) -> bytes:
    """Pickles the arguments of several calls that one task makes, one after the other."""
    try:
        with _by_value(carry):
            return _dumped(list(calls))
    except Exception as error:
        named = [(f"item {n}", one) for n, call in enumerate(calls, 1) for one in call]
        raise Unpicklable(_about(named, error) or f"the items can't be pickled: {error}", HINT) from error


def calls_of(calls: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Returns the file of these calls, with this Python's version and cloudpickle's; raises ``LocalFault``
    for more than a job may hold."""
    size = sum(len(arguments) for _, arguments in calls) + sum(map(len, {one for one, _ in calls}))
    if size <= CALLS_BYTES_MAX:
        data = encode_calls(sys.version_info[:2], cloudpickle.__version__, calls)
        if len(data) <= CALLS_BYTES_MAX:
            return data
        size = len(data)
    fault = too_large(size)
    raise LocalFault(fault.what, fault.hint)


def unpickled(data: bytes) -> object:
    """Unpickles what a worker sent: that can run code here, so only for a job that asked for it."""
    value: object = pickle.loads(data)
    return value


def name_of(function: Callable[..., object]) -> str:
    """Returns what people call a function."""
    return getattr(function, "__qualname__", None) or type(function).__name__


def _dumped(value: object) -> bytes:
    return bytes(cloudpickle.dumps(value, protocol=PROTOCOL))


def _about_function(function: Callable[..., object], error: Exception) -> str:
    variables: list[tuple[str, object]] = []
    if inspect.isfunction(function):
        found = inspect.getclosurevars(function)
        variables = [
            (f"its variable {name}", one) for name, one in {**found.nonlocals, **found.globals}.items()
        ]
    owner = getattr(function, "__self__", None)
    if owner is not None:
        variables.append(("its object", owner))
    what = f"the function {name_of(function)} can't be pickled"
    culprit = _about(variables, error)
    return f"{what}: {culprit}" if culprit else f"{what}: {error}"


def _about(named: Iterable[tuple[str, object]], error: Exception) -> str:
    """Names the first value that can't be pickled by itself; nothing where each can."""
    for name, value in named:
        try:
            _dumped(value)
        except Exception as trouble:  # noqa: BLE001 - it is what is being looked for
            return f"{name} (a {type(value).__name__}) can't be pickled: {trouble}"
    return ""


@contextmanager
def _by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    if not modules:
        yield
        return
    with _registering:  # cloudpickle keeps one list for all threads
        fresh = [one for one in modules if one.__name__ not in cloudpickle.list_registry_pickle_by_value()]
        for module in fresh:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in fresh:
                cloudpickle.unregister_pickle_by_value(module)
