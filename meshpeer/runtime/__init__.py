"""Drives core with trio: ports, the driver loop, the performers of effects. Knows no adapter by name."""
