"""The demo: a real teacher becomes a cache, and a student learns from it."""

from sparselogits.demo.run import run

__all__ = ["run"]
