"""A real sshd on a lab machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import meshkit
from meshlab import Node

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
"""Bootstrap brings none to a machine with systemd, which would start it at the next boot."""


@contextmanager
def sshd(server: Node, client: Node) -> Iterator[None]:
    """Runs a real sshd on a machine that lets another's key in (``/run/lab/id`` there)."""
    for node, name in ((server, "host"), (client, "id")):
        node.run(["mkdir", "-p", "/run/lab", "/run/sshd"])
        if not node.path(f"/run/lab/{name}").exists():
            node.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/run/lab/{name}"])
    server.put_file("/run/lab/keys", client.path("/run/lab/id.pub").read_bytes(), 0o600)
    lines = (
        "HostKey /run/lab/host",
        "AuthorizedKeysFile /run/lab/keys",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "PermitRootLogin prohibit-password",
    )
    server.put_file("/run/lab/sshd_config", "\n".join(lines) + "\n")
    argv = [SSHD or "sshd", "-D", "-e", "-f", "/run/lab/sshd_config"]
    with server.popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            meshkit.until(lambda: listens(server, 22), "sshd listens")
            yield
        finally:
            process.terminate()


def listens(node: Node, port: int) -> bool:
    return bool(node.run(["ss", "-Hltn", f"sport = :{port}"]).stdout.strip())
