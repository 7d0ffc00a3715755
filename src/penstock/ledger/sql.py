"""The ledger over any SQL database: every verb is one operation in one transaction."""

import time
from collections.abc import Callable, Mapping, Sequence

from penstock.ledger import accept, chunks, collections, documents, garbage, keys, versions
from penstock.ledger.base import Accepted, ApiKey, DocumentPage, Found, Garbage, Ledger, NewVersion, VersionWork
from penstock.ledger.batch_book import BatchBook
from penstock.ledger.database import Database
from penstock.ledger.generation_book import GenerationBook
from penstock.ledger.reply_book import ReplyBook
from penstock.types import Chunk, Collection, CollectionOptions, Document, DocumentStatus, Failure


class SqlLedger(Ledger):
    """`clock` gives Unix seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self.batches = BatchBook(database, clock)
        self.generations = GenerationBook(database, clock)
        self.replies = ReplyBook(database, clock)

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        await self._database.ping()

    async def create_collection(self, tenant: str, name: str, options: CollectionOptions) -> Collection:
        return await self._database.write(collections.create, self._clock(), tenant, name, options)

    async def get_collection(self, tenant: str, name: str) -> Collection:
        return await self._database.read(collections.get, tenant, name)

    async def list_collections(self, tenant: str | None) -> Sequence[Collection]:
        return await self._database.read(collections.list_all, tenant)

    async def delete_collection(self, tenant: str, name: str) -> Collection:
        return await self._database.write(collections.delete, self._clock(), tenant, name)

    async def accept(self, tenant: str, collection: str, versions: Sequence[NewVersion]) -> Sequence[Accepted]:
        return await self._database.write(accept.accept, self._clock(), tenant, collection, versions)

    async def get_document(self, tenant: str, document_id: str) -> Document:
        return await self._database.read(documents.get, tenant, document_id)

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
        return await self._database.read(documents.list_page, tenant, collection, statuses, name, cursor, limit)

    async def delete_document(self, tenant: str, document_id: str) -> Document:
        return await self._database.write(documents.delete, self._clock(), tenant, document_id)

    async def delete_documents(self, tenant: str, document_ids: Sequence[str]) -> Sequence[Document]:
        return await self._database.write(documents.delete_many, self._clock(), tenant, document_ids)

    async def list_chunks(self, tenant: str, document_id: str, *, after: int = -1, limit: int = 100) -> Sequence[Chunk]:
        return await self._database.read(chunks.list_page, tenant, document_id, after, limit)

    async def get_version(self, version_id: str) -> VersionWork:
        return await self._database.read(versions.get, version_id)

    async def get_versions(self, version_ids: Sequence[str]) -> Mapping[str, VersionWork]:
        return await self._database.read(versions.get_many, version_ids)

    async def finish_version(
        self,
        version_id: str,
        chunks: Sequence[Chunk],
        *,
        pages: int,
        notes: Sequence[str] = (),
        index_ids: frozenset[str] | None = None,
    ) -> bool:
        finish = versions.Finish(
            version_id=version_id, chunks=chunks, pages=pages, notes=notes, index_ids=index_ids, now=self._clock()
        )
        return await self._database.write_each(versions.finish, finish)

    async def fail_version(self, version_id: str, failure: Failure) -> None:
        await self._database.write(versions.fail, self._clock(), version_id, failure)

    async def cancel_version(self, version_id: str) -> None:
        await self._database.write(versions.cancel, self._clock(), version_id)

    async def reopen_version(self, version_id: str, job_id: str) -> bool:
        return await self._database.write(versions.reopen, self._clock(), version_id, job_id)

    async def pending_versions(self, *, after: str = "", limit: int = 1000) -> Sequence[VersionWork]:
        return await self._database.read(versions.list_pending, after, limit)

    async def get_chunks(self, collection_id: str, chunk_ids: Sequence[str]) -> Mapping[str, Found]:
        return await self._database.read(chunks.get, collection_id, chunk_ids)

    async def scan_chunks(self, collection_id: str, *, after: str = "", limit: int = 1000) -> Sequence[Found]:
        return await self._database.read(chunks.scan, collection_id, after, limit)

    async def garbage(self, *, limit: int = 1000) -> Sequence[Garbage]:
        return await self._database.write(garbage.claim, limit)

    async def forget(self, version_ids: Sequence[str]) -> None:
        await self._database.write(garbage.forget, self._clock(), version_ids)

    async def live_blobs(self, sha256s: Sequence[str]) -> frozenset[str]:
        return await self._database.read(garbage.live_blobs, sha256s)

    async def create_api_key(self, tenant: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
        return await self._database.write(keys.create, self._clock(), tenant, name, scopes)

    async def find_api_key(self, secret: str) -> ApiKey | None:
        return await self._database.read(keys.find, secret)

    async def list_api_keys(self, tenant: str | None) -> Sequence[ApiKey]:
        return await self._database.read(keys.list_all, tenant)

    async def revoke_api_key(self, key_id: str, *, tenant: str | None = None) -> None:
        await self._database.write(keys.revoke, self._clock(), key_id, tenant)
