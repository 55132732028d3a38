"""Who is linked, and who is alive: links and their greeting, dialling, pings, opinions.

``links`` keeps one link per pair and dials for ever; ``liveness`` turns silence and closed links into
opinions. Both are
soft state: nothing here is stored, and nothing here removes a WireGuard peer. Who is *in* is the ledger's
business.
"""
