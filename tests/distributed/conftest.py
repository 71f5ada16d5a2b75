"""Makes the helper modules of this folder, and the tiny teachers of `training`, importable."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent

for _folder in (_HERE.parent / "training", _HERE):
    sys.path.insert(0, str(_folder))
