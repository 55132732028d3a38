"""One node: composes the machines, routes messages and effects between them. The only room that knows all
others."""
