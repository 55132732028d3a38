"""Mixes of NATs: the path machines of a whole mesh behind drawn routers, for hours of virtual time."""
