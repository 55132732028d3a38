"""The same core in a virtual world, and in-memory adapters that pass the real ones' contract tests. Touches
nothing."""
