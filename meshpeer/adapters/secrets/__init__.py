"""This machine's secrets, for tasks that name them: a file that nobody else can read."""

from meshpeer.adapters.secrets.file import FileSecrets

__all__ = ["FileSecrets"]
