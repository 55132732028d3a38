"""The relay: two UDP ports per pair, between which ciphertext crosses.

``helper`` is a process of its own, so that packets share neither the agent's event loop nor its lock; it
imports ``core`` for every decision and ``mmsg`` for batches. ``process`` is the agent's side of it.
``fastpath`` lets nftables carry data packets once both ends are known. Nothing is imported here: the helper
should not carry what only the agent needs.
"""
