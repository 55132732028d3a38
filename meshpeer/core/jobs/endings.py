"""How an attempt ends, in words: one place, so that every executor says the same."""

from __future__ import annotations

HELPER_DIED = "the spawn helper died"


def exit_error(exit_code: int) -> str:
    """Returns the error of a process that returned ``exit_code``: empty for 0."""
    return "" if exit_code == 0 else f"exit code {exit_code}"


def killed_error(signal_name: str, file_bytes_max: int) -> str:
    """Returns the error of a process that a signal ended; the kernel enforces the size of files by one."""
    if signal_name == "SIGXFSZ":
        return f"killed by SIGXFSZ: a file grew beyond {file_bytes_max >> 20} MiB"
    return f"killed by {signal_name}"


def timed_out_error(timeout_s: float) -> str:
    return f"timed out after {timeout_s:g} s"


def no_program_error(program: str) -> str:
    return f"no such program: {program}"
