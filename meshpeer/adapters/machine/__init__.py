"""What this machine has and lets through, as ``meshpeer doctor`` looks at it: programs, devices, disk, names,
firewall. Reads only; tested in ``tests/adapters/machine``."""

from meshpeer.adapters.machine.observe import Disk, Machine, Ruleset, newest_file, observe_machine, resolve

__all__ = ["Disk", "Machine", "Ruleset", "newest_file", "observe_machine", "resolve"]
