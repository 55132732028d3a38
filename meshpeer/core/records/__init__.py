"""Signed facts about a mesh: their envelope, their kinds, their precedence, and the ledger that merges them.

A fact is believed because of who signed it, never because of who passed it on. ``merge`` is commutative,
associative
and idempotent, so nodes that saw the same facts in any order, any number of times, hold the same ledger.
"""
