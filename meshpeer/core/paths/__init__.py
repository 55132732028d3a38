"""Which underlay address to try for a peer's tunnel, and when to try another."""
