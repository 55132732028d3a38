"""Calls of services by HTTP, and the secrets that sign them."""

from meshpeer.adapters.webhooks.calling import HttpCaller
from meshpeer.adapters.webhooks.secret_file import read_keys

__all__ = ["HttpCaller", "read_keys"]
