"""What a process leaves in a cache that died while it wrote a file under a hidden name."""

from __future__ import annotations

from pathlib import Path

from sparselogits.durable import io_error
from sparselogits.manifest import MANIFEST_NAME

# Of `durable.replace_file`, and of the training shard.
_PATTERNS = (f".{MANIFEST_NAME}.*.tmp", ".model-*.slm.*.tmp", ".shard-*.slc.*.tmp")


def remove_temporary_files(directory: Path) -> None:
    """Removes them. REQUIRES: the caller holds the directory's lock.

    Raises:
        CacheIOError: The system refused.
    """
    try:
        for pattern in _PATTERNS:
            for path in directory.glob(pattern):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise io_error(error, "cannot remove a temporary file in", directory) from error
