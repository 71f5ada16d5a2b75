"""Runs the families of faults and prints one table.

    run.py [--scale X] [--only NAME] [--json FILE]

Each module of this directory that defines `run(scale: float) -> list[Row]` is one family
(see `families.py`). Scale 1.0 is the full run; below it a family tries proportionally fewer
faults. All randomness is seeded: a run repeats. The exit status is 0 where nothing was lost,
1 where something was or a family did not end, 2 for a usage error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from families import family_names, load
from report import Row, table


def main(arguments: list[str] | None = None) -> int:
    names = family_names()
    parser = argparse.ArgumentParser(description="Fault injection; ends with a table.")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is the full run")
    parser.add_argument(
        "--only", action="append", choices=names, help="run this family (may be repeated)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    options = parser.parse_args(arguments)
    if not options.scale > 0:
        parser.error(f"--scale must be above 0, got {options.scale}")

    rows: list[tuple[str, Row]] = []
    broken = []
    for name in options.only or names:
        started = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += [(name, row) for row in load(name).run(options.scale)]
        except Exception:  # the other families must still be reported
            traceback.print_exc()
            broken.append(name)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    print(table(rows))
    if broken:
        print(f"did not end: {', '.join(broken)}")
    if options.json is not None:
        report = {
            "scale": options.scale,
            "rows": [{"family": family, **asdict(row)} for family, row in rows],
            "did_not_end": broken,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if broken or any(row.lost for _, row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
