"""The service manager: what an agent tells it while it runs, and what installs and removes its units."""

from meshpeer.adapters.systemd.manager import Manager, ServiceFailed
from meshpeer.adapters.systemd.notify import Notifier
from meshpeer.adapters.systemd.unit_files import UnitFiles

__all__ = ["Manager", "Notifier", "ServiceFailed", "UnitFiles"]
