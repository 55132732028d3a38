"""How much of a file to ask for at a time.

A window is what is on its way at once, so it is also what a ping may have to wait behind on a narrow path. It
follows the path: about ``WINDOW_S`` worth of pieces, doubled where they came faster and halved where they
came slower. The time between the first piece and the last one counts, never the round trip before them: a
long path is no narrow one.

The holder says how many more it will send (``BlobPiece.left``), and one of an earlier version sends no more
than ``FIRST_PIECES`` at a time, however many it is asked for.
"""

from __future__ import annotations

WINDOW_S = 0.25
FIRST_PIECES = 16
MIN_PIECES = 2
"""Of a single piece nothing can be measured."""
MAX_PIECES = 64
"""3.5 MiB in flight."""


class Window:
    """The window of one transfer."""

    def __init__(self) -> None:
        self.pieces = FIRST_PIECES

    def took(self, pieces: int, spread_s: float) -> None:
        """Learns that so many pieces came, the last one so long after the first; a short window says nothing
        about whether a longer one would be too long."""
        if pieces < MIN_PIECES:
            return
        # The first piece's own time on the path is not seen.
        window_s = spread_s * pieces / (pieces - 1)
        if window_s > WINDOW_S:
            self.pieces = max(MIN_PIECES, min(self.pieces, pieces) // 2)
        elif pieces >= self.pieces and 2 * window_s <= WINDOW_S:
            self.pieces = min(MAX_PIECES, self.pieces * 2)
