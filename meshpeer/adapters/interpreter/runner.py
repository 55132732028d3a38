"""Calls one function in a task's own process: the kit's ``__main__``.

    python3 .meshpeer/kit.pyz CALL FORM RESULT REPORT       FORM: json or pickle; paths in the scratch folder

It runs in whatever Python the node names for tasks, from 3.8 on, and knows nothing of meshpeer but the form
of a call: a JSON document that names a function, or what ``core.jobs.calls`` describes, with the versions
checked before anything is unpickled. What the function returns stands in RESULT. What it raises stands in
REPORT, with its traceback, which goes to stderr as well; then the exit code is 1.
"""

from __future__ import annotations

import os
import struct
import sys

# Whatever else a call takes is imported where it is taken: most of a short task's time is imports.
RESULT_BYTES_MAX = 16 * 1024 * 1024
MESSAGE_CHARACTERS_MAX = 4096
TRACEBACK_CHARACTERS_MAX = 64 * 1024
PICKLED_ERROR_BYTES_MAX = 256 * 1024
MAGIC = b"MPCALLS1"
HEAD = struct.Struct(">8sBB16sI")
ROW = struct.Struct(">QQQQ")


class CannotCall(Exception):
    """Nothing was called: the text says why."""


class ResultUnfit(Exception):
    """What the function returned can't be handed back: the text says why."""


def main(arguments: list[str]) -> int:
    """Calls, and writes result or report; returns the exit code."""
    base = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    call_path, form, result_path, report_path = arguments
    del sys.argv[1:]  # they are no business of the function
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # who follows what it prints shall see it as it is printed
        reconfigure(line_buffering=True)
    here = os.getcwd()
    sys.path[:0] = [here] if here == base else [here, base]
    try:
        with open(os.path.join(base, call_path), "rb") as file:
            call = file.read()
        value = _value_of(call)
        _write(os.path.join(base, result_path), _dumped(value, form))
    except BaseException as error:  # noqa: BLE001 - SystemExit, too: the caller is told what came
        _report(os.path.join(base, report_path), error, form)
        return 1
    return 0


def _value_of(call: bytes) -> object:
    if not call.startswith(MAGIC):
        return _named(call)
    import pickle

    _, major, minor, version, _count = HEAD.unpack_from(call)
    _check_versions(major, minor, version.rstrip(b"\0").decode("ascii"))
    _, function_bytes, _, arguments_bytes = ROW.unpack_from(call, HEAD.size)
    at = HEAD.size + ROW.size
    function = pickle.loads(call[at : at + function_bytes])
    at += function_bytes
    arguments = pickle.loads(call[at : at + arguments_bytes])
    if isinstance(arguments, list):  # a chunk: one call after the other
        return [function(*one) for one in arguments]
    positional, named = arguments
    return function(*positional, **named)


def _check_versions(major: int, minor: int, cloudpickle_version: str) -> None:
    if (major, minor) != sys.version_info[:2]:
        mine = ".".join(map(str, sys.version_info[:2]))
        raise CannotCall(f"the function was pickled by Python {major}.{minor}, and this is Python {mine}")
    from cloudpickle_version import VERSION

    if cloudpickle_version != VERSION:
        raise CannotCall(
            f"the function was pickled by cloudpickle {cloudpickle_version}, and here is {VERSION}"
        )


def _named(call: bytes) -> object:
    import importlib
    import json

    document = json.loads(call.decode("utf-8"))
    module_name, _, qualified = document["call"].partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[: error.name.count(".") + 1] == error.name.split("."):
            raise CannotCall(
                f"there is no module {error.name}: name it under the job's files, or install it for "
                f"{sys.executable}"
            ) from None
        raise
    for name in qualified.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CannotCall(f"there is no {qualified} in {module_name}") from None
    if not callable(found):
        raise CannotCall(f"{qualified} in {module_name} is no function")
    value: object = found(*document.get("args", ()), **document.get("kwargs", {}))
    return value


def _dumped(value: object, form: str) -> bytes:
    if form == "json":
        import json

        try:
            data = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise ResultUnfit(
                f"the function returned what JSON has not ({type(value).__name__}): {error}"
            ) from None
    else:
        data = _pickled(value)
    if len(data) > RESULT_BYTES_MAX:
        raise ResultUnfit(
            f"the result has {len(data)} bytes, and {RESULT_BYTES_MAX} are allowed: write it to a file and "
            "name that under outputs"
        )
    return data


def _pickled(value: object) -> bytes:
    """Pickles with the standard library where that can, since that is fast, else by cloudpickle."""
    import pickle

    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - whatever __reduce__ raises
        import cloudpickle

        try:
            return bytes(cloudpickle.dumps(value, protocol=5))
        except Exception as error:  # noqa: BLE001
            raise ResultUnfit(
                f"what the function returned can't be pickled ({type(value).__name__}): {error}"
            ) from None


def _report(path: str, error: BaseException, form: str) -> None:
    import base64
    import contextlib
    import json
    import traceback

    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_code.co_filename == _value_of.__code__.co_filename:
        shown = shown.tb_next
    own = isinstance(error, (CannotCall, ResultUnfit))
    text = str(error) + "\n" if own else "".join(traceback.format_exception(type(error), error, shown))
    with contextlib.suppress(Exception):  # a function may have closed what it did not open
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
    document = {
        "type": type(error).__name__,
        "message": _text_of(error)[:MESSAGE_CHARACTERS_MAX],
        "traceback": text[-TRACEBACK_CHARACTERS_MAX:],
        "pickle": base64.b64encode(_pickled_error(error)).decode("ascii") if form == "pickle" else "",
    }
    _write(path, json.dumps(document).encode("ascii"))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a __str__ of somebody else's
        return ""


def _pickled_error(error: BaseException) -> bytes:
    """Returns the exception pickled; nothing where it can't be, or is too large."""
    if isinstance(error, (CannotCall, ResultUnfit)):
        return b""
    import pickle

    try:
        data = _pickled(error)
        pickle.loads(data)  # many an exception can be pickled, and not be made again
    except Exception:  # noqa: BLE001
        return b""
    return data if len(data) <= PICKLED_ERROR_BYTES_MAX else b""


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
