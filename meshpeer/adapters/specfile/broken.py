"""The one error of the document readers: this is not YAML, JSON or TOML at all."""

from __future__ import annotations

from meshpeer.core.jobs.located import Place


class BrokenDocument(Exception):
    """The text can't be read as a document; ``load`` makes it an error of the job file."""

    def __init__(self, what: str, place: Place | None = None, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.place = place
        self.hint = hint
