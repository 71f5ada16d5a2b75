"""`fetch_shard`: the bytes of one shard, held to the digest in the manifest."""

from __future__ import annotations

import hashlib

from sparselogits.errors import CorruptionError
from sparselogits.manifest import ShardRow
from sparselogits.remote.new_file import NewFile
from sparselogits.remote.remote_files import RemoteFiles, pause

MAX_FETCHES = 3
# Asked for at once. A connection that drops costs no more than this; each thread has it in memory.
_CHUNK_BYTES = 1 << 24


def fetch_shard(files: RemoteFiles, row: ShardRow, file: NewFile) -> None:
    """Writes a whole shard, and again where its digest is not that of the manifest.

    Raises:
        CorruptionError: `MAX_FETCHES` times other bytes came; names the URL and both digests.
        CacheIOError: It cannot be fetched, or not be written.
    """
    for attempt in range(1, MAX_FETCHES + 1):
        digest = hashlib.sha256()
        for start in range(0, row.bytes, _CHUNK_BYTES):
            data = files.read(row.file, start, min(start + _CHUNK_BYTES, row.bytes))
            digest.update(data)
            file.write(data, start)
        found = digest.hexdigest()
        if found == row.sha256:
            return
        if attempt < MAX_FETCHES:
            pause(attempt)
    raise CorruptionError(
        f"is {found} as fetched ({MAX_FETCHES} times), but {row.sha256} in the manifest",
        files.location.file_url(row.file),
        None,
        "sha256",
    )
