"""Verbs about collections and their documents."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from penstock.client.flow import Call, Emit, FilePart, Flow, Pause, Query, Read, Stream
from penstock.client.options import ClientOptions
from penstock.client.records import (
    AcceptedDocument,
    AcceptedDocuments,
    ChunkPage,
    CollectionList,
    DocumentPage,
    DocumentsDeleted,
    DocumentWithJob,
    NewFile,
    NewText,
)
from penstock.client.requests import exchange, request, transport_error
from penstock.client.verb import stream_verb, verb
from penstock.errors import DeadlineExceeded
from penstock.types import (
    JSON,
    Batch,
    Chunk,
    Collection,
    CollectionOptions,
    Document,
    DocumentStatus,
    Job,
    Priority,
)

DEFAULT_COLLECTION = "default"
UPLOAD_TIMEOUT_S = 300.0
"""The server answers once everything is on its disk."""


class CollectionVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def create_collection(self, name: str, options: CollectionOptions | None = None) -> Flow[Collection]:
        """`Conflict` when the name is taken."""
        body = {"name": name, **msgspec.to_builtins(options or CollectionOptions())}
        call = Call(method="POST", path="/v1/collections", json=body, repeatable=False)
        return request(self.options, call, Collection)

    @verb
    def list_collections(self) -> Flow[Sequence[Collection]]:
        """All of them, by name."""
        page = yield from request(self.options, Call(method="GET", path="/v1/collections"), CollectionList)
        return page.collections

    @verb
    def get_collection(self, name: str) -> Flow[Collection]:
        """With the numbers of its searchable documents and chunks. `NotFound`."""
        return request(self.options, Call(method="GET", path=_collection_path(name)), Collection)

    @verb
    def copy_collection(
        self, name: str, new_name: str, *, image_model: str | None = None, captions: bool | None = None
    ) -> Flow[Batch]:
        """A new collection with the same options, but for those given, and documents, as a batch.

        `NotFound`, `Conflict` (the new name).
        """
        body = {"name": new_name, "image_model": image_model, "captions": captions}
        call = Call(method="POST", path=f"{_collection_path(name)}/copy", json=body, repeatable=False)
        return request(self.options, call, Batch)

    @verb
    def reindex_collection(
        self,
        name: str,
        *,
        embedding_model: str | None = None,
        image_model: str | None = None,
        engine: str | None = None,
    ) -> Flow[Job]:
        """Rebuilds its index while it is searched, then switches; `wait_job` waits. `Conflict` while one runs."""
        body = {"embedding_model": embedding_model, "image_model": image_model, "engine": engine}
        call = Call(method="POST", path=f"{_collection_path(name)}/reindex", json=body, repeatable=False)
        return request(self.options, call, Job)

    @stream_verb
    def export_collection(self, name: str, *, chunks: bool = True) -> Stream[bytes]:
        """The collection as one file (a tar), in blocks. `NotFound`."""
        query: Query = {"chunks": str(chunks).lower()}
        call = Call(method="GET", path=f"{_collection_path(name)}/export", query=query)
        yield from exchange(self.options, call, stream=True)
        try:
            while (block := (yield Read())) is not None:
                yield Emit(block)
        except httpx.TransportError as exc:
            raise transport_error(exc, self.options) from exc

    @verb
    def import_collection(self, name: str, export: Path) -> Flow[Batch]:
        """A new collection of an exported file, as a batch. `Conflict` when the name is taken."""
        call = Call(
            method="POST",
            path="/v1/collections/import",
            form={"name": name},
            files=[FilePart(name=export.name, content=export, media_type="application/x-tar")],
            repeatable=False,
            timeout_s=UPLOAD_TIMEOUT_S,
        )
        return request(self.options, call, Batch)

    @verb
    def delete_collection(self, name: str) -> Flow[Collection]:
        """Deletes it with all its documents, and returns it as it was. `NotFound`."""
        return request(self.options, Call(method="DELETE", path=_collection_path(name)), Collection)


class DocumentVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def upload(
        self,
        files: Sequence[NewFile],
        *,
        collection: str = DEFAULT_COLLECTION,
        priority: Priority = Priority.BULK,
        idempotency_key: str | None = None,
    ) -> Flow[Sequence[AcceptedDocument]]:
        """Uploads files in one request; returned in their order once all are safely accepted, or none.

        Raises the first refusal; `field_errors` tells of all files that were refused. Sending it again is harmless.
        """
        call = upload_call("/v1/documents", files, collection, priority, idempotency_key)
        reply = yield from request(self.options, call, AcceptedDocuments)
        return reply.documents

    @verb
    def add_texts(
        self,
        texts: Sequence[NewText],
        *,
        collection: str = DEFAULT_COLLECTION,
        priority: Priority = Priority.BULK,
        idempotency_key: str | None = None,
    ) -> Flow[Sequence[AcceptedDocument]]:
        """`upload` for documents that are text already."""
        body = {"collection": collection, "priority": priority, "documents": msgspec.to_builtins(texts)}
        call = Call(method="POST", path="/v1/documents", json=body, headers=once(idempotency_key))
        reply = yield from request(self.options, call, AcceptedDocuments)
        return reply.documents

    @verb
    def list_documents(
        self,
        *,
        collection: str | None = None,
        statuses: Sequence[DocumentStatus] = (),
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Flow[DocumentPage]:
        """One page, newest first; every filter that is given must match."""
        return _document_page(self.options, _filter(collection, statuses, name), cursor, limit)

    @stream_verb
    def iter_documents(
        self,
        *,
        collection: str | None = None,
        statuses: Sequence[DocumentStatus] = (),
        name: str | None = None,
        page_size: int = 1000,
    ) -> Stream[Document]:
        """All that match, newest first, page by page."""
        cursor = None
        while True:
            page = yield from _document_page(self.options, _filter(collection, statuses, name), cursor, page_size)
            for document in page.documents:
                yield Emit(document)
            cursor = page.cursor
            if cursor is None:
                return

    @verb
    def get_document(self, document_id: str) -> Flow[Document]:
        """With the progress of its newest version. `NotFound`."""
        return _document(self.options, document_id)

    @verb
    def wait_document(self, document_id: str, *, timeout_s: float = 600.0) -> Flow[Document]:
        """The document once it is done, failed or cancelled. `DeadlineExceeded` when that takes longer."""
        until = time.monotonic() + timeout_s
        pause_s = 0.05
        while True:
            document = yield from _document(self.options, document_id)
            if document.status.final:
                return document
            if time.monotonic() + pause_s > until:
                raise DeadlineExceeded(
                    f"Document {document.name!r} is not done after {timeout_s:g} s. Its ingest goes on; look again."
                )
            yield Pause(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    @stream_verb
    def iter_chunks(self, document_id: str, *, page_size: int = 500) -> Stream[Chunk]:
        """The passages of the searchable version, in order. `NotFound`."""
        cursor = None
        while True:
            query = {"cursor": cursor, "limit": page_size}
            call = Call(method="GET", path=f"{_document_path(document_id)}/chunks", query=query)
            page = yield from request(self.options, call, ChunkPage)
            for chunk in page.chunks:
                yield Emit(chunk)
            cursor = page.cursor
            if cursor is None:
                return

    @verb
    def delete_documents(
        self,
        *,
        collection: str = DEFAULT_COLLECTION,
        filter: JSON = None,  # noqa: A002
        statuses: Sequence[DocumentStatus] = (),
        dry_run: bool = False,
    ) -> Flow[DocumentsDeleted]:
        """Deletes every document of the collection that matches the filter (over metadata) and the statuses."""
        body = {"collection": collection, "filter": filter, "statuses": [*statuses], "dry_run": dry_run}
        return request(self.options, Call(method="POST", path="/v1/documents/delete", json=body), DocumentsDeleted)

    @verb
    def delete_document(self, document_id: str) -> Flow[Document]:
        """From now on it is not found any more; returns it as it was. `NotFound`."""
        return request(self.options, Call(method="DELETE", path=_document_path(document_id)), Document)


def _document(options: ClientOptions, document_id: str) -> Flow[Document]:
    """The document, with its job's progress."""
    reply = yield from request(options, Call(method="GET", path=_document_path(document_id)), DocumentWithJob)
    if reply.job is None or reply.document.status.final:
        return reply.document
    return replace(reply.document, progress=reply.job.progress)


def _document_page(options: ClientOptions, where: Query, cursor: str | None, limit: int) -> Flow[DocumentPage]:
    query = {**where, "cursor": cursor, "limit": limit}
    return request(options, Call(method="GET", path="/v1/documents", query=query), DocumentPage)


def _filter(collection: str | None, statuses: Sequence[DocumentStatus], name: str | None) -> Query:
    return {"collection": collection, "status": [*statuses], "name": name}


def upload_call(
    path: str, files: Sequence[NewFile], collection: str, priority: Priority, idempotency_key: str | None
) -> Call:
    """The form that documents and batches are sent by."""
    return Call(
        method="POST",
        path=path,
        files=[FilePart(name=file.name, content=file.content, media_type=file.media_type) for file in files],
        form={
            "collection": collection,
            "priority": priority.value,
            "metadata": msgspec.json.encode([file.metadata for file in files]).decode(),
        },
        headers=once(idempotency_key),
        timeout_s=UPLOAD_TIMEOUT_S,
    )


def once(idempotency_key: str | None) -> dict[str, str]:
    """The key stays the same however often the request is sent again."""
    return {"idempotency-key": idempotency_key or secrets.token_hex(16)}


def _collection_path(name: str) -> str:
    return f"/v1/collections/{quote(name, safe='')}"


def _document_path(document_id: str) -> str:
    return f"/v1/documents/{quote(document_id, safe='')}"
