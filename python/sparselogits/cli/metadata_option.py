"""`--metadata KEY=VALUE`, which several verbs take."""

from __future__ import annotations

import argparse

from sparselogits.errors import InvalidArgumentError


def add_metadata(parser: argparse._ActionsContainer, help_text: str = "may be repeated") -> None:
    """Declares the option."""
    parser.add_argument(
        "--metadata", metavar="KEY=VALUE", action="append", default=[], help=help_text
    )


def parse_metadata(pairs: list[str]) -> dict[str, str]:
    """What was given, key to value.

    Raises:
        InvalidArgumentError: Not KEY=VALUE, or a key is given twice.
    """
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(f"--metadata must be KEY=VALUE, got {pair!r}")
        if key in metadata:
            raise InvalidArgumentError(f"--metadata {key!r} is given twice")
        metadata[key] = value
    return metadata
