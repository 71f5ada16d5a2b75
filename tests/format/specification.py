"""The text of v1.md, for tests that hold its tables and numbers against the code."""

from __future__ import annotations

import re

from golden import FORMATS

SPEC = (FORMATS / "v1.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading."""
    (body,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", SPEC, re.M | re.S)
    return str(body)


def fields(text: str) -> list[tuple[str, int, int]]:
    """The rows `| offset | size | name |` of a table."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (?:`(\w+)`|(reserved)) \|", text, re.M)
    return [(quoted or plain, int(offset), int(size)) for offset, size, quoted, plain in rows]


def number(text: str) -> int:
    """A limit: `2^32 − 1`, `65,535`, `2^30 bytes`."""
    power = re.match(r"2\^(\d+)(?: − (\d+))?", text)
    if power:
        return int(2 ** int(power[1]) - int(power[2] or 0))
    found = re.match(r"[\d,]+", text)
    assert found is not None, text
    return int(found[0].replace(",", ""))


def stated(pattern: str, text: str) -> int:
    """The number that the one place in the text that fits the pattern states."""
    (found,) = re.findall(pattern, text)
    return number(found)
