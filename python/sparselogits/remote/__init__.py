"""Caches in object stores and on hubs, read through a bounded local directory (docs/remote.md)."""
