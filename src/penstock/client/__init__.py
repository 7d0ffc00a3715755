"""The Python SDK: `Client` blocks, `AsyncClient` is awaited; the verbs are the same. Needs httpx and msgspec alone.

    with Client() as penstock:
        penstock.upload([NewFile(name="code.pdf", content=Path("code.pdf"))])
        answer = penstock.ask("How high must a hoarding be?")

Errors are those of `penstock.errors`. What is refused for now (429, 503), and connections that fail, are tried again a
few times.
"""

from penstock.client.clients import AsyncClient, Client
from penstock.client.options import ClientOptions
from penstock.client.problems import FieldError, field_errors
from penstock.client.records import (
    AcceptedDocument,
    BatchChanged,
    BatchPage,
    ChunkPage,
    DocumentPage,
    DocumentsDeleted,
    JobPage,
    JobsChanged,
    NewFile,
    NewText,
    QueueHealth,
    Readiness,
    SearchResult,
)

__all__ = [
    "AcceptedDocument",
    "AsyncClient",
    "BatchChanged",
    "BatchPage",
    "ChunkPage",
    "Client",
    "ClientOptions",
    "DocumentPage",
    "DocumentsDeleted",
    "FieldError",
    "JobPage",
    "JobsChanged",
    "NewFile",
    "NewText",
    "QueueHealth",
    "Readiness",
    "SearchResult",
    "field_errors",
]
