"""Uploaded bytes, addressed by their SHA-256."""

import importlib
from pathlib import Path

from penstock.blobs.base import Blob, BlobStore
from penstock.errors import ConfigError

__all__ = ["Blob", "BlobStore", "open_blobs"]


def open_blobs(url: str) -> BlobStore:
    """The store at `file:///folder`, `memory://`, `s3://bucket/prefix`, `gs://…` or `az://…`, to be entered as an async
    context manager. A folder's path is taken as it is, not percent-decoded. `ConfigError` for any other URL."""
    scheme, _, rest = url.partition("://")
    store: BlobStore
    if scheme == "file" and rest.startswith("/"):
        store = importlib.import_module("penstock.blobs.folder").FolderBlobs(Path(rest))
    elif scheme in {"memory", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss"}:
        store = importlib.import_module("penstock.blobs.objects").ObjectBlobs.at(url)
    else:
        raise ConfigError(f"{url!r} is not a blob store: use file:///folder, s3://…, gs://…, az://… or memory://.")
    return store
