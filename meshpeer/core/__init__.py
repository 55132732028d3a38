"""Values and machines: what meshpeer decides, with no IO, no clock and no randomness of its own.

A machine has two doors, ``handle(event, now) -> list[Effect]`` and ``next_deadline()``. Time, randomness and
keys come in as arguments, so one seed replays a whole mesh. The rooms, from high to low (a room imports only
lower ones; rooms on one line do not import each other)::

    node                                              composes the machines, routes messages and effects
    scheduler | membership | antientropy | topology | paths
    wgconf | addressing | jobs
    records                                           signed facts, their precedence, the ledger
    identity                                          keys, certificates, chains, invites
    wire                                              canonical CBOR, frames, limits
    effects, deadline, ids, errors
"""
