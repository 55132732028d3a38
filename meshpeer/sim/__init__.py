"""The same core in a virtual world: in-memory ports, virtual time, one seed."""
