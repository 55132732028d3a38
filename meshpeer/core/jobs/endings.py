"""How an attempt ends, in words: one place, so that every executor says the same."""

from __future__ import annotations

from dataclasses import dataclass

from meshpeer.core.jobs.rules import size_text

HELPER_DIED = "the spawn helper died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeeze:
    """What the kernel denied the processes of an attempt."""

    killed_for_memory: int = 0
    """Processes that were killed because memory was used up."""
    forks_refused: int = 0


def exit_error(exit_code: int) -> str:
    """Returns the error of a process that returned ``exit_code``: empty for 0."""
    return "" if exit_code == 0 else f"exit code {exit_code}"


def killed_error(signal_name: str, file_bytes_max: int = 0, *, asked: bool = True) -> str:
    """Returns the error of a process that a signal ended; the kernel enforces the size of files by one.

    ``asked``: the job says itself how much its output may be.
    """
    if signal_name == "SIGXFSZ":
        more = "" if asked else " (limits: {output: SIZE} allows more)"
        return f"killed by SIGXFSZ: a file grew beyond {size_text(file_bytes_max, ' ')}{more}"
    return f"killed by {signal_name}"


def squeezed_error(error: str, squeeze: Squeeze, memory_bytes: int, processes: int) -> str:
    """Returns the error of an attempt that failed, with the limit that it met; nothing for a success.

    ``memory_bytes`` is the attempt's own limit, or 0: then it was what all tasks have together.
    """
    if not error:
        return ""
    if squeeze.killed_for_memory:
        if not memory_bytes:
            return f"{error}: the tasks of this node used up the memory that they have together"
        return f"{error}: it used more than {size_text(memory_bytes, ' ')} of memory"
    if squeeze.forks_refused:
        return f"{error}: it wanted more than {processes} processes at once"
    return error


def timed_out_error(timeout_s: float) -> str:
    return f"timed out after {timeout_s:g} s"


def deaf_error(error: str, grace_s: float) -> str:
    """Returns the error of an attempt that was told to end (SIGTERM), and had to be killed."""
    return f"{error}, and was killed: it did not end within {grace_s:g} s of SIGTERM"


def too_much_output_error(output_bytes: int) -> str:
    return f"ended: its output and files grew beyond {size_text(output_bytes, ' ')}"


def disk_filled_error(free_bytes: int) -> str:
    return f"ended: it filled the disk of this node to less than {size_text(free_bytes, ' ')} free"


def no_program_error(program: str) -> str:
    return f"no such program: {program}"


def left_running_note(killed: int) -> str:
    """Returns the line that stderr ends with where an attempt left processes running."""
    what = "1 process that was" if killed == 1 else f"{killed} processes that were"
    return f"meshpeer: killed {what} still running when the task ended\n"
