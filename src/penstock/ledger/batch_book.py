"""Batches in the ledger: many documents that were asked for together, and how far they are gathered.

Guarantees, beside those of the ledger (`penstock.ledger.base`):
- What `add` records (items, versions, how far it is) is there wholly or not at all, so whoever gathers may die at any
  moment: the next one goes on behind the last position, and nothing is recorded twice.
- The blobs of sources that are still to be gathered are live.
- A cancelled batch takes no more items; what it had begun and not finished is cancelled in the same moment.
"""

from collections.abc import Callable, Sequence

from penstock.ledger import batch_views, batches
from penstock.ledger.base import Accepted
from penstock.ledger.batch_records import BatchPage, BatchWork, ItemPage, NewBatch, NewItem, Position, Source
from penstock.ledger.database import Database
from penstock.types import Batch, BatchItemState, Failure


class BatchBook:
    """The verbs of batches, each one transaction."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def create(self, tenant: str, collection: str, new: NewBatch) -> tuple[Batch, bool]:
        """The batch, and whether it is new: False when the idempotency key names one with the same fingerprint.

        `NotFound` (collection), `Conflict` when the key was used for something else."""
        return await self._database.write(batches.create, self._clock(), tenant, collection, new)

    async def get(self, tenant: str, batch_id: str) -> Batch:
        """With its counts by state. `NotFound`."""
        return await self._database.read(batch_views.get, tenant, batch_id)

    async def list(self, tenant: str, *, cursor: str | None = None, limit: int = 100) -> BatchPage:
        """Newest first."""
        return await self._database.read(batch_views.list_page, tenant, cursor, limit)

    async def items(
        self,
        tenant: str,
        batch_id: str,
        states: frozenset[BatchItemState] = frozenset(),
        *,
        cursor: str | None = None,
        limit: int = 100,
    ) -> ItemPage:
        """In the order in which they were gathered. `NotFound`."""
        return await self._database.read(batch_views.list_items, tenant, batch_id, states, cursor, limit)

    async def cancel(self, tenant: str, batch_id: str) -> Sequence[str]:
        """Cancels what is not finished; returns the jobs that are of no more use. `NotFound`."""
        return await self._database.write(batches.cancel, self._clock(), tenant, batch_id)

    async def gather_again(self, tenant: str, batch_id: str, job_id: str) -> bool:
        """A failed or cancelled batch goes on where it stopped; of any, URLs that were refused are to be fetched again.
        False when there is nothing to gather. `NotFound`."""
        return await self._database.write(batches.gather_again, self._clock(), tenant, batch_id, job_id)

    async def work(self, batch_id: str) -> BatchWork | None:
        """None when there is nothing to gather (any more)."""
        return await self._database.read(batches.work, batch_id)

    async def sources(self, batch_id: str, *, first: int = 1, limit: int = 100) -> Sequence[Source]:
        """From number `first` on, in order."""
        return await self._database.read(batches.list_sources, batch_id, first, limit)

    async def add(
        self, batch_id: str, seen: Position, to: Position, items: Sequence[NewItem]
    ) -> Sequence[Accepted] | None:
        """Accepts the items' versions as `Ledger.accept` does, records all items, and moves from `seen` to `to`.

        None, and no effect, when the batch does not gather any more or is not at `seen`: somebody else is at it."""
        return await self._database.write(batches.add, self._clock(), batch_id, seen, to, items)

    async def close(self, batch_id: str, failure: Failure | None = None) -> bool:
        """All is gathered, or it cannot be. False when it was not gathering."""
        return await self._database.write(batches.close, self._clock(), batch_id, failure)

    async def gathering(self, *, after: str = "", limit: int = 1000) -> Sequence[BatchWork]:
        """Those that a reconciler must find a live job for, by id."""
        return await self._database.read(batches.list_gathering, after, limit)

    async def forget(self, *, older_than_s: float) -> int:
        """Drops the record of batches (not their documents) that nothing happened to for so long; returns how many."""
        return await self._database.write(batches.forget, self._clock() - older_than_s)
