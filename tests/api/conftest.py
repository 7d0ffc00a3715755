"""An app over in-memory stores, and clients that call it in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from penstock.api.main import create_app
from penstock.app import Services
from penstock.blobs import open_blobs
from penstock.jobs import open_store
from penstock.ledger import open_ledger
from penstock.pipeline.intake import Intake
from penstock.settings import ApiOptions, Settings


@asynccontextmanager
async def open_services(data_dir: Path, **options: Any) -> AsyncIterator[Services]:
    async with open_ledger("memory://") as ledger, open_store("memory://") as jobs, open_blobs("memory://") as blobs:
        settings = Settings(data_dir=data_dir, api=ApiOptions(**options))
        yield Services(settings=settings, ledger=ledger, jobs=jobs, blobs=blobs, intake=Intake(ledger, jobs))


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with open_services(tmp_path) as opened:
        yield opened


@pytest.fixture
def app(services: Services) -> FastAPI:
    return create_app(services)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as opened:
        yield opened
