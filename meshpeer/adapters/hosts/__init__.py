"""The managed block in /etc/hosts: names of members for every program on the machine, without a DNS
server."""

from meshpeer.adapters.hosts.block import names_in, render_block, replace_block
from meshpeer.adapters.hosts.file import HostsFile

__all__ = ["HostsFile", "names_in", "render_block", "replace_block"]
