"""Jobs as values: the spec a person writes, its validation, the expanded graph. No scheduling, no IO."""
