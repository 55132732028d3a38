"""Adapters touch the world, one package per port. They never import each other."""
