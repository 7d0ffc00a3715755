"""Where in the index a collection is kept: a reindex fills another place while searches go on in the old one.

Guarantees, beside those of the ledger (`penstock.ledger.base`):
- From `start` on, `Ledger.finish_version` takes only versions that were written to both places. So what is searchable
  once `start` has returned is all that is left to copy, and documents may arrive meanwhile.
- `switch` moves searches from the old place to the new one, with its options, in one moment.
"""

from collections.abc import Callable, Sequence

from penstock.ledger import generations
from penstock.ledger.base import Generation
from penstock.ledger.database import Database
from penstock.types import CollectionOptions


class GenerationBook:
    """The verbs of generations, each one transaction."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def start(
        self, tenant: str, collection: str, generation_id: str, options: CollectionOptions, job_id: str
    ) -> Generation:
        """Begins to build one. `Conflict` while another is being built, `NotFound` (collection)."""
        return await self._database.write(
            generations.start, self._clock(), tenant, collection, generation_id, options, job_id
        )

    async def building(self, generation_id: str) -> Generation | None:
        """None when it is not being built (any more)."""
        return await self._database.read(generations.building, generation_id)

    async def building_of(self, collection_id: str) -> Generation | None:
        return await self._database.read(generations.building_of, collection_id)

    async def all_building(self) -> Sequence[Generation]:
        """Those that a reconciler must find a live job for."""
        return await self._database.read(generations.list_building)

    async def move(self, generation_id: str, cursor: str, done: int) -> bool:
        """Notes how far it is. False when it is not being built any more."""
        return await self._database.write(generations.move, self._clock(), generation_id, cursor, done)

    async def switch(self, generation_id: str) -> bool:
        """From now on the collection is searched there, with its options. False when it was abandoned or its collection
        deleted; True also when it had been switched to before."""
        return await self._database.write(generations.switch, self._clock(), generation_id)

    async def abandon(self, generation_id: str) -> None:
        """Gives up a generation that is being built; no effect on any other."""
        await self._database.write(generations.abandon, self._clock(), generation_id)

    async def retired(self, *, older_than_s: float) -> Sequence[str]:
        """Those that nobody searches for so long: the index may drop them."""
        return await self._database.read(generations.list_retired, self._clock() - older_than_s)

    async def forget(self, generation_id: str) -> None:
        """The index has dropped it. No effect on one that is not retired."""
        await self._database.write(generations.forget, generation_id)
