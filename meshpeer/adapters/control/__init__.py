"""The control socket: HTTP on a Unix socket, mode 0600. ``server`` needs the web libraries; ``client`` is
the standard library only.
"""
