"""Bytes on links: canonical CBOR, frames, and the limits that every decoder applies first."""
