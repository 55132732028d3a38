"""Links for real: TCP, TLS 1.3 both ways, WebSocket frames. Touches sockets; tested in
``tests/adapters/transport``."""

from meshpeer.adapters.transport.server import TlsTransport, open_transport
from meshpeer.adapters.transport.tls import TlsIdentity

__all__ = ["TlsIdentity", "TlsTransport", "open_transport"]
