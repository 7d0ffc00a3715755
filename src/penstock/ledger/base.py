"""The contract of the ledger: collections, documents, their versions and chunks' text, API keys. The only truth.

Guarantees of every engine:
- Each verb is one transaction: after a crash its whole effect is there or none of it; when it returned, it is.
- Readers see a document's searchable version switch in one moment (`finish_version`); chunks of a version that is not
  the searchable one, or of a deleted document, are never returned by `get_chunks`.
- Final statuses of a version never change, but for `reopen_version`. Delete wins over every later write.
- A tenant never sees another's rows: a foreign id is `NotFound`, exactly like an unknown one.

Text that goes in (names, chunks) must be storable everywhere: no NUL, no lone surrogate; else `InvalidInput`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.types import JSON, Chunk, Collection, CollectionOptions, Document, DocumentStatus, Failure

if TYPE_CHECKING:
    from penstock.ledger.batch_book import BatchBook
    from penstock.ledger.generation_book import GenerationBook
    from penstock.ledger.reply_book import ReplyBook


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """Bytes that were uploaded (already in the blob store) as document `name` of a collection.

    The same name in the same collection is the same document: its newest version. `name` is any text of 1 to 1024
    characters. `job_id` is chosen before, so that ledger and job store agree on it.
    """

    name: str
    sha256: str
    size_bytes: int
    media_type: str
    job_id: str
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`created` is False when the document's newest version is the same (bytes, media type, metadata), and is done or
    on its way: then `document.job_id` is that version's job."""

    document: Document
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A place in the index that is being filled for a collection, to be searched with these options.

    What lies up to `cursor` (a chunk id) is in it: `done` chunks. `job_id` is the job that fills it.
    """

    id: str
    tenant: str
    collection_id: str
    options: CollectionOptions
    cursor: str = ""
    done: int = 0
    job_id: str = ""


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
    building: Generation | None = None
    """While the collection is reindexed: where else the version must be written before it can be finished."""


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
    """A version whose chunks must leave the index (`index_ids`: everywhere): superseded, deleted, failed, cancelled."""

    version_id: str
    document_id: str
    collection_id: str
    index_ids: Sequence[str]


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

    batches: "BatchBook"
    generations: "GenerationBook"
    replies: "ReplyBook"

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
        """`Conflict` when the name is taken, `InvalidInput` when it is none.

        A name has 1 to 64 letters and digits of any script, `.`, `_` and `-`, and begins with none of `.` and `-`."""

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
        anew. An older pending version of the same document is superseded (status cancelled); what is searchable stays
        so until the new version is finished. `NotFound` (collection).
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
        """Newest first; inserts between two pages neither hide nor repeat a document. `InvalidInput` for a cursor that
        is not ours, `NotFound` (collection)."""

    @abstractmethod
    async def delete_document(self, tenant: str, document_id: str) -> Document:
        """From now on it is not found and not searchable; its versions become garbage. Returns it as it was last. The
        same name uploaded again is a new document."""

    @abstractmethod
    async def delete_documents(self, tenant: str, document_ids: Sequence[str]) -> Sequence[Document]:
        """`delete_document` for many in one moment; returns those that were there, as they were last."""

    @abstractmethod
    async def list_chunks(self, tenant: str, document_id: str, *, after: int = -1, limit: int = 100) -> Sequence[Chunk]:
        """The searchable version's chunks with position > after, in order."""

    # ingest

    @abstractmethod
    async def get_version(self, version_id: str) -> VersionWork:
        """`NotFound` when there is no such version."""

    @abstractmethod
    async def get_versions(self, version_ids: Sequence[str]) -> Mapping[str, VersionWork]:
        """`get_version` for many; those that are not there are missing."""

    @abstractmethod
    async def finish_version(
        self,
        version_id: str,
        chunks: Sequence[Chunk],
        *,
        pages: int,
        notes: Sequence[str] = (),
        index_ids: frozenset[str] | None = None,
    ) -> bool:
        """Writes the chunks and makes this the document's searchable version, in one moment; raises the collection's
        version. False when it is not `live` or not pending any more: nothing is shown, and it is garbage (once more, if
        need be), for its caller may have written to the index. A second call for the version that is searchable is
        True and changes nothing. `InvalidInput` for chunks of another version. `index_ids`: where in the index the
        chunks were written; `Unavailable` (ask `get_version` again) when a reindex has begun or ended meanwhile, so
        that they would be missing somewhere. None: not known, not checked."""

    @abstractmethod
    async def fail_version(self, version_id: str, failure: Failure) -> None:
        """Pending → failed. No effect on a version that is final."""

    @abstractmethod
    async def cancel_version(self, version_id: str) -> None:
        """Pending → cancelled. No effect on a version that is final."""

    @abstractmethod
    async def reopen_version(self, version_id: str, job_id: str) -> bool:
        """Failed or cancelled → pending, for the retry that somebody asked for; pending stays so, with this job.
        False when it is not `live`, or done. `Unavailable` (retry) in the moment between `garbage` and `forget`."""

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
        """Versions whose chunks are still to be taken out of the index (and the ledger). They cannot be reopened until
        `forget`. A purger that died leaves them here; two at once must not be (a job with a key sees to it)."""

    @abstractmethod
    async def forget(self, version_ids: Sequence[str]) -> None:
        """The index holds nothing of these versions any more: drops their chunks' text, and an hour later the rows of
        those that nobody can want again. Ignores versions that `garbage` did not give, or that came back since."""

    @abstractmethod
    async def live_blobs(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those of the given blobs that are still wanted: by a document's newest or searchable version."""

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
    async def revoke_api_key(self, key_id: str, *, tenant: str | None = None) -> None:
        """Not found by its secret from now on; twice is harmless. `NotFound`, also for a key of another tenant than the
        given one."""
