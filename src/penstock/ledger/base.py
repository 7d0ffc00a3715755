"""The contract of the ledger: collections, documents, their versions and chunks' text, API keys. The only truth.

Guarantees of every engine:
- Each verb is one transaction: after a crash its whole effect is there or none of it; when it returned, it is.
- Readers see a document's searchable version switch in one moment (`finish_version`); chunks of a version that is not
  the searchable one, or of a deleted document, are never returned by `get_chunks`.
- Final statuses of a version never change, but for `reopen_version`. Delete wins over every later write.
- A tenant never sees another's rows: a foreign id is `NotFound`, exactly like an unknown one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from penstock.types import JSON, Chunk, Collection, CollectionOptions, Document, DocumentStatus, Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """Bytes that were uploaded (already in the blob store) as document `name` of a collection.

    The same name in the same collection is the same document: its newest version. `job_id` is chosen before, so that
    ledger and job store agree on it. `parse_options` is part of what makes a version the same or another.
    """

    name: str
    sha256: str
    size_bytes: int
    media_type: str
    job_id: str
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`created` is False when the document's newest version already has these bytes and is done or on its way."""

    document: Document
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionWork:
    """A version that is to be ingested: everything its handler needs to know."""

    version_id: str
    document_id: str
    tenant: str
    collection: Collection
    name: str
    sha256: str
    size_bytes: int
    media_type: str
    job_id: str
    metadata: Mapping[str, JSON]
    status: DocumentStatus
    live: bool
    """False once the document or its collection was deleted or a newer version was accepted: do not ingest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage:
    documents: Sequence[Document]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A visible chunk with what a hit shows of its document."""

    chunk: Chunk
    document_name: str
    metadata: Mapping[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A version whose chunks must leave the index: superseded, deleted, failed or cancelled."""

    version_id: str
    document_id: str
    collection_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    id: str
    tenant: str
    name: str
    scopes: Sequence[str]
    created_at: float
    revoked: bool = False


class Ledger(ABC):
    """See the module's docstring for the guarantees. Opened and closed as an async context manager."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Connects, creates or migrates the schema. `DataError` when the database is damaged, locked or newer."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def ping(self) -> None:
        """`Unavailable` when the database does not answer."""

    # collections

    @abstractmethod
    async def create_collection(self, tenant: str, name: str, options: CollectionOptions) -> Collection:
        """`Conflict` when the name is taken."""

    @abstractmethod
    async def get_collection(self, tenant: str, name: str) -> Collection:
        """With counts of searchable documents and chunks. `NotFound`."""

    @abstractmethod
    async def list_collections(self, tenant: str | None) -> Sequence[Collection]:
        """All of a tenant's (None: everybody's), by name."""

    @abstractmethod
    async def delete_collection(self, tenant: str, name: str) -> Collection:
        """Deletes it with its documents; their versions become garbage. `NotFound`."""

    # documents

    @abstractmethod
    async def accept(self, tenant: str, collection: str, versions: Sequence[NewVersion]) -> Sequence[Accepted]:
        """Records uploads as pending versions, in order, all or none. Recognises bytes that are there or on their way.

        Identical bytes under another name are another document. A version that failed or was cancelled is accepted
        anew. An older pending version of the same document is superseded (status cancelled). `NotFound` (collection).
        """

    @abstractmethod
    async def get_document(self, tenant: str, document_id: str) -> Document: ...

    @abstractmethod
    async def list_documents(
        self,
        tenant: str,
        collection: str | None = None,
        statuses: frozenset[DocumentStatus] = frozenset(),
        *,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """Newest first. `InvalidInput` for a cursor that is not ours."""

    @abstractmethod
    async def delete_document(self, tenant: str, document_id: str) -> Document:
        """From now on it is not found and not searchable; its versions become garbage. Returns it as it was last."""

    @abstractmethod
    async def list_chunks(self, tenant: str, document_id: str, *, after: int = -1, limit: int = 100) -> Sequence[Chunk]:
        """The searchable version's chunks with position > after, in order."""

    # ingest

    @abstractmethod
    async def get_version(self, version_id: str) -> VersionWork:
        """`NotFound` when there is no such version."""

    @abstractmethod
    async def finish_version(self, version_id: str, chunks: Sequence[Chunk], *, pages: int) -> bool:
        """Writes the chunks and makes this the document's searchable version, in one moment; raises the collection's
        version. False (and nothing written) when it is not `live` any more. A second call for a version that is done is
        True and changes nothing."""

    @abstractmethod
    async def fail_version(self, version_id: str, failure: Failure) -> None:
        """Pending → failed. No effect on a version that is final."""

    @abstractmethod
    async def cancel_version(self, version_id: str) -> None:
        """Pending → cancelled. No effect on a version that is final."""

    @abstractmethod
    async def reopen_version(self, version_id: str, job_id: str) -> bool:
        """Failed or cancelled → pending, for the retry that somebody asked for. False when it is not `live`."""

    @abstractmethod
    async def pending_versions(self, *, after: str = "", limit: int = 1000) -> Sequence[VersionWork]:
        """Live versions that are not final, by version id: what a reconciler must find a live job for."""

    # search

    @abstractmethod
    async def get_chunks(self, collection_id: str, chunk_ids: Sequence[str]) -> Mapping[str, Found]:
        """The visible ones among these, by chunk id."""

    @abstractmethod
    async def scan_chunks(self, collection_id: str, *, after: str = "", limit: int = 1000) -> Sequence[Found]:
        """All visible chunks of a collection, by chunk id: what `reindex` reads."""

    @abstractmethod
    async def garbage(self, *, limit: int = 1000) -> Sequence[Garbage]:
        """Versions whose chunks are still to be taken out of the index (and the ledger)."""

    @abstractmethod
    async def forget(self, version_ids: Sequence[str]) -> None:
        """The index holds nothing of these versions any more: drop their chunks' text, and the rows of deleted ones."""

    @abstractmethod
    async def live_blobs(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those of the given blobs that some version still refers to."""

    # API keys

    @abstractmethod
    async def create_api_key(self, tenant: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
        """The record, and the secret that is shown once; only its hash is stored."""

    @abstractmethod
    async def find_api_key(self, secret: str) -> ApiKey | None:
        """The key that this secret belongs to, unless revoked. Compared in constant time."""

    @abstractmethod
    async def list_api_keys(self, tenant: str | None) -> Sequence[ApiKey]: ...

    @abstractmethod
    async def revoke_api_key(self, key_id: str) -> None: ...
