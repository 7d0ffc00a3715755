"""Identifiers: unique without coordination, sorted by the time they were made, safe in URLs and file names."""

import hashlib
import secrets
import time


def new_id(prefix: str) -> str:
    """`doc_0197f3c1a2b4` + 16 random hex digits: 48 bits of milliseconds, then 64 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def chunk_id(version_id: str, position: int) -> str:
    """Deterministic, so that indexing a version again overwrites its chunks instead of doubling them."""
    return "chk_" + hashlib.blake2b(f"{version_id}:{position}".encode(), digest_size=14).hexdigest()
