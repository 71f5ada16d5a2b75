"""`python -m sparselogits`: the same as the `sparselogits` command."""

from __future__ import annotations

import sys

from sparselogits.cli import main

if __name__ == "__main__":
    sys.exit(main())
