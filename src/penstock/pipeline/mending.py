"""Rebuilds what the index has lost: its folder was deleted, a file is damaged, a server was set up anew."""

import logging

from penstock.errors import Conflict, DataError, NotFound
from penstock.jobs.base import JobStore
from penstock.ledger.base import Ledger
from penstock.pipeline.reindexing import start_reindex
from penstock.stores.base import IndexQuery, IndexStore
from penstock.stores.places import pictures_place
from penstock.types import Collection

logger = logging.getLogger(__name__)

PROBE = "index"


class Mender:
    """Compares the index with the ledger, collection by collection."""

    def __init__(self, ledger: Ledger, jobs: JobStore, index: IndexStore) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._index = index

    async def mend(self) -> int:
        """Starts the reindex of every collection that the index holds less of than the ledger; returns how many."""
        begun = 0
        for collection in await self._ledger.list_collections(None):
            if collection.chunks and await self._is_broken(collection):
                begun += await self._begin(collection)
        return begun

    async def _is_broken(self, collection: Collection) -> bool:
        place = collection.index_id or collection.id
        try:
            await self._index.search(place, IndexQuery(k=1, text=PROBE))
            if await self._count(collection) >= collection.chunks:
                return False
            # Rows are written before the ledger counts them, and deleted after: only a fresh look can tell.
            now = await self._ledger.get_collection(collection.tenant, collection.name)
            return now.index_id == collection.index_id and await self._count(now) < now.chunks
        except DataError as exc:
            logger.warning("The index of collection %s cannot be read: %s", collection.name, exc.message)
            return True
        except NotFound:
            return False  # deleted meanwhile

    async def _count(self, collection: Collection) -> int:
        """A chunk has its row in one place: a picture in that of the pictures, all else in that of the passages."""
        place = collection.index_id or collection.id
        rows = await self._index.count(place)
        if collection.options.image_model is not None:
            rows += await self._index.count(pictures_place(place))
        return rows

    async def _begin(self, collection: Collection) -> bool:
        try:
            await start_reindex(self._ledger, self._jobs, collection.tenant, collection.name)
        except (Conflict, NotFound):  # one is running already, or it was deleted meanwhile
            return False
        logger.warning("The index has lost rows of collection %s; it is rebuilt from the ledger", collection.name)
        return True
