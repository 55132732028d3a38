"""Pages for this machine alone, over HTTP on loopback: ``/metrics``."""
