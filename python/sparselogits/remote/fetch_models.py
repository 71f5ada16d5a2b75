"""`fetch_models`: the models of a remote cache, fetched when it is opened."""

from __future__ import annotations

from sparselogits import _core
from sparselogits.cache_models import model_digest, read_model, sound_models
from sparselogits.errors import CorruptionError, SparseLogitsError
from sparselogits.limits import MAX_MODEL_BYTES
from sparselogits.manifest import Manifest
from sparselogits.remote.local_store import LocalStore
from sparselogits.remote.remote_files import RemoteFiles, pause

_MAX_FETCHES = 3


def fetch_models(
    files: RemoteFiles, manifest: Manifest, store: LocalStore
) -> list[_core.CodecModel]:
    """Makes the models local, those that are not, and loads all.

    Args:
        files: Where the cache lies.
        manifest: Of the cache.
        store: Where its models are kept. They are small, and not counted.

    Raises:
        FormatError: A model is not the one that the manifest names.
        CacheIOError: A model cannot be fetched.
    """
    directory = store.folder(manifest.digest)
    for row in manifest.models:
        try:
            read_model(directory, row.file)
        except SparseLogitsError:
            _fetch(files, row.file, manifest.digest, store)
    return sound_models(directory, manifest)


def _fetch(files: RemoteFiles, name: str, digest: str, store: LocalStore) -> None:
    for attempt in range(1, _MAX_FETCHES + 1):
        data = files.read_all(name, MAX_MODEL_BYTES)
        found = f"{_core.xxh64(data):016x}"
        if found == model_digest(name):
            break
        if attempt == _MAX_FETCHES:
            raise CorruptionError(
                f"is {found} as fetched ({attempt} times), not the one that the file is named by",
                files.location.file_url(name),
                None,
                "digest",
            )
        pause(attempt)
    file = store.new_file(digest, "model", len(data))
    try:
        file.write(data, 0)
        file.publish(store.folder(digest) / name)
    finally:
        file.discard()
