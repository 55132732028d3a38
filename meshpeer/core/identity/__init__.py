"""Who is who: keys, certificates, chains and invites. Pure: seeds, times and serial numbers come in as
arguments.

A node's identity is its Ed25519 public key: never a certificate's fingerprint, an address or a name. One
format (X.509 with Ed25519, RFC 8410) serves the handshake, gossip and invites alike::

    root                                    CA, path length 2
      -> issuer, held by some nodes         CA, path length 1
           -> invite, short-lived           CA, path length 0 -> provisional leaf, signed by the joiner itself
           -> durable leaf of a node

``constraints`` and ``profile`` say what a certificate holds and how it looks, ``certificates`` makes them,
``chains`` judges them, ``invites`` puts one in a line of text, ``admission`` decides who gets a durable
one.
"""
