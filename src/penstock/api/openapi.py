"""`python -m penstock.api.openapi` prints the OpenAPI document of the HTTP api."""

import asyncio
import json
import tempfile
from pathlib import Path

from penstock.api.main import create_app
from penstock.app import open_services
from penstock.settings import load_settings


async def openapi() -> dict[str, object]:
    """The document as the server gives it, from stores that live in memory."""
    with tempfile.TemporaryDirectory() as folder:
        stores = dict.fromkeys(("ledger", "jobs", "blobs"), "memory://")
        async with open_services(load_settings(stores | {"data_dir": Path(folder)})) as services:
            return create_app(services).openapi()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(openapi()), indent=1, ensure_ascii=False))
