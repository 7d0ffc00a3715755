"""Verbs about batches: many documents under one id."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from penstock.client.documents import DEFAULT_COLLECTION, once, upload_call
from penstock.client.flow import Call, Emit, Flow, Pause, Stream
from penstock.client.options import ClientOptions
from penstock.client.records import BatchChanged, BatchItemPage, BatchPage, NewFile
from penstock.client.requests import request
from penstock.client.verb import stream_verb, verb
from penstock.errors import DeadlineExceeded
from penstock.types import JSON, Batch, BatchItem, BatchItemState, BatchState, Priority

UNDER_WAY = frozenset({BatchState.GATHERING, BatchState.RUNNING})


class BatchVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def upload_batch(
        self,
        files: Sequence[NewFile],
        *,
        collection: str = DEFAULT_COLLECTION,
        priority: Priority = Priority.BULK,
        idempotency_key: str | None = None,
    ) -> Flow[Batch]:
        """Files, and archives (zip, tar, tar.gz) that the server unpacks, in one request. What cannot be taken is told
        with the batch, and does not refuse the rest."""
        call = upload_call("/v1/batches", files, collection, priority, idempotency_key)
        return request(self.options, call, Batch)

    @verb
    def start_batch(
        self,
        *,
        urls: Sequence[str] = (),
        folder: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        metadata: Mapping[str, JSON] | None = None,
        collection: str = DEFAULT_COLLECTION,
        priority: Priority = Priority.BULK,
        idempotency_key: str | None = None,
    ) -> Flow[Batch]:
        """Has the server fetch URLs, or take a folder of its own. `Forbidden` for one that is not allowed there."""
        body: dict[str, JSON] = {
            "collection": collection,
            "priority": priority,
            "urls": [*urls],
            "folder": folder,
            "include": [*include],
            "exclude": [*exclude],
            "metadata": dict(metadata or {}),
        }
        call = Call(method="POST", path="/v1/batches", json=body, headers=once(idempotency_key))
        return request(self.options, call, Batch)

    @verb
    def list_batches(self, *, cursor: str | None = None, limit: int = 20) -> Flow[BatchPage]:
        """One page, newest first."""
        call = Call(method="GET", path="/v1/batches", query={"cursor": cursor, "limit": limit})
        return request(self.options, call, BatchPage)

    @verb
    def get_batch(self, batch_id: str) -> Flow[Batch]:
        """With the number of its documents by state. `NotFound`."""
        return request(self.options, Call(method="GET", path=_path(batch_id)), Batch)

    @verb
    def wait_batch(self, batch_id: str, *, timeout_s: float = 3600.0) -> Flow[Batch]:
        """The batch once nothing of it is under way. `DeadlineExceeded` when that takes longer."""
        until = time.monotonic() + timeout_s
        pause_s = 0.1
        while True:
            batch = yield from request(self.options, Call(method="GET", path=_path(batch_id)), Batch)
            if batch.state not in UNDER_WAY:
                return batch
            if time.monotonic() + pause_s > until:
                raise DeadlineExceeded(f"Batch {batch_id} is not done after {timeout_s:g} s. It goes on; look again.")
            yield Pause(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    @stream_verb
    def iter_batch_items(
        self, batch_id: str, *, states: Sequence[BatchItemState] = (), page_size: int = 500
    ) -> Stream[BatchItem]:
        """What became of each file, in the order in which they were gathered. `NotFound`."""
        cursor = None
        while True:
            query = {"state": [*states], "cursor": cursor, "limit": page_size}
            call = Call(method="GET", path=f"{_path(batch_id)}/items", query=query)
            page = yield from request(self.options, call, BatchItemPage)
            for item in page.items:
                yield Emit(item)
            cursor = page.cursor
            if cursor is None:
                return

    @verb
    def cancel_batch(self, batch_id: str) -> Flow[Batch]:
        """Cancels all that is unfinished. `NotFound`."""
        return request(self.options, Call(method="POST", path=f"{_path(batch_id)}/cancel"), Batch)

    @verb
    def retry_batch(self, batch_id: str) -> Flow[BatchChanged]:
        """Tries again what failed or was cancelled. `NotFound`."""
        call = Call(method="POST", path=f"{_path(batch_id)}/retry", repeatable=False)
        return request(self.options, call, BatchChanged)


def _path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"
