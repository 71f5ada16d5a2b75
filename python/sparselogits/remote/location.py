"""`Location`: a URL that fsspec understands, and the file system behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sparselogits.errors import CacheIOError, InvalidArgumentError

# The packages that fsspec needs for the schemes of docs/remote.md; for others it tells itself.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "hf": "huggingface_hub", "gs": "gcsfs", "gcs": "gcsfs"}


def is_url(path: object) -> bool:
    """Whether a caller means a URL. A `Path` never is one: it would have lost a slash."""
    return isinstance(path, str) and "://" in path


class Location:
    """The folder of a remote cache. Picklable; without locks, connections or threads.

    Args:
        url: Such as `s3://bucket/cache`.
        storage_options: What fsspec's file system of that scheme takes.

    Raises:
        InvalidArgumentError: Not such a URL, or not a mapping with str keys.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        if "\0" in url or not url.split("://", 1)[1].strip("/"):
            raise InvalidArgumentError(f"the URL must name a folder, got {url!r}")
        options = {} if storage_options is None else storage_options
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            # Their values may be secrets: only their kind is shown.
            raise InvalidArgumentError(
                f"storage_options must map str to values, got {type(options).__name__}"
            )
        self.url = url.rstrip("/")
        self.storage_options = dict(options)

    def file_url(self, name: str) -> str:
        """The URL of a file of the cache."""
        return f"{self.url}/{name}"

    def connect(self) -> tuple[Any, str]:
        """fsspec's file system, for this process, and the folder's path in it.

        Raises:
            InvalidArgumentError: A package is missing (names it), or fsspec does not know the
                scheme or refuses the options.
            CacheIOError: The file system cannot be reached.
        """
        scheme = self.url.split("://", 1)[0].rsplit("::", 1)[-1]
        try:
            fsspec = import_module("fsspec.core")
        except ImportError as error:
            raise InvalidArgumentError(
                f"{self.url}: a cache at a URL needs fsspec: pip install 'sparselogits[remote]'"
            ) from error
        try:
            filesystem, path = fsspec.url_to_fs(self.url, **self.storage_options)
        except ImportError as error:
            package = _PACKAGES.get(scheme)
            advice = f"pip install {package}" if package else str(error)
            raise InvalidArgumentError(
                f"{self.url}: {scheme}:// needs a package that is missing: {advice}"
            ) from error
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{self.url}: fsspec refuses this: {error}") from error
        except Exception as error:
            raise CacheIOError(f"{self.url}: cannot connect: {described(error)}") from error
        return filesystem, str(path).rstrip("/")


def described(error: BaseException) -> str:
    """An error of somebody else's in one line: its kind, and what it says."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None and not said:
        said = os.strerror(error.errno)
    return f"{type(error).__name__}: {said[:500]}" if said else type(error).__name__
