"""The managed block in /etc/hosts. Touches the lines between its two marks, and nothing else."""

from meshpeer.adapters.hosts.block import HostsFile, render_block, replace_block

__all__ = ["HostsFile", "render_block", "replace_block"]
