"""What every process of Penstock stands on: the stores that hold what must not be lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from penstock.app.data_folder import prepare_folder
from penstock.blobs import open_blobs
from penstock.blobs.base import BlobStore
from penstock.fetch import Fetcher
from penstock.jobs import open_store
from penstock.jobs.base import JobStore
from penstock.ledger import open_ledger
from penstock.ledger.base import Ledger
from penstock.pipeline.batches import Batches
from penstock.pipeline.intake import Intake
from penstock.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The api needs no more than this; a worker adds models, index and parsers."""

    settings: Settings
    ledger: Ledger
    jobs: JobStore
    blobs: BlobStore
    intake: Intake
    fetcher: Fetcher

    @property
    def batches(self) -> Batches:
        return Batches(self.ledger, self.jobs, self.intake)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Opens the stores that the settings name, and closes them in the opposite order.

    Raises `DataError` that names the damaged, locked or unwritable file, and `Unavailable` for a server that is away.
    """
    prepare_folder(settings.data_dir)
    async with (
        open_ledger(settings.ledger_url) as ledger,
        open_store(settings.jobs_url, settings.queue) as jobs,
        open_blobs(settings.blobs_url) as blobs,
        Fetcher(settings.fetch) as fetcher,
    ):
        intake = Intake(ledger, jobs)
        yield Services(settings=settings, ledger=ledger, jobs=jobs, blobs=blobs, intake=intake, fetcher=fetcher)
