"""Logs: facts with fields, for people on a terminal, as JSON elsewhere."""

from __future__ import annotations

import sys

import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes to standard error."""

    def __init__(self, level: str, form: str) -> None:
        as_json = form == "json"
        renderer: structlog.types.Processor = (
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
        )
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        )

    def write(self, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> None:
        """Logs one fact."""
        self._logger.log(LEVELS.get(level, 20), fact, **dict(fields))
