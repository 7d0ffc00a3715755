"""`penstock keys …`: works on the ledger itself, so it needs no server and no key, but the right to the data folder."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from penstock.app.data_folder import prepare_folder
from penstock.cli.output import Json, age, exit_codes, print_json, print_table, say
from penstock.cli.process import DataDir, given
from penstock.ledger import open_ledger
from penstock.ledger.base import Ledger
from penstock.settings import load_settings
from penstock.types import DEFAULT_TENANT

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, add_completion=False)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose documents it opens.")] = DEFAULT_TENANT,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may ask, but change nothing.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""

    async def run() -> None:
        async with _ledger(data_dir) as ledger:
            key, secret = await ledger.create_api_key(tenant, name, ["read"] if read_only else ["read", "write"])
        if as_json:
            print_json({"key": key, "secret": secret})
        else:
            say(f"Made the key {key.id} ({name}) of the tenant {tenant!r}. It will not be shown again:")
            typer.echo(secret)

    with exit_codes(as_json=as_json):
        asyncio.run(run())


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: Json = False) -> None:
    """All keys, without their secrets."""

    async def run() -> None:
        async with _ledger(data_dir) as ledger:
            keys = await ledger.list_api_keys(None)
        if as_json:
            print_json(keys)
            return
        print_table(
            ["id", "name", "tenant", "scopes", "age", "revoked"],
            [
                [
                    key.id,
                    key.name,
                    key.tenant,
                    ",".join(key.scopes),
                    age(time.time() - key.created_at),
                    "yes" if key.revoked else "",
                ]
                for key in keys
            ],
        )

    with exit_codes(as_json=as_json):
        asyncio.run(run())


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id (`penstock keys list`).")], data_dir: DataDir = None
) -> None:
    """Make a key useless, within seconds and for good."""

    async def run() -> None:
        async with _ledger(data_dir) as ledger:
            await ledger.revoke_api_key(key_id)
        say(f"Revoked {key_id}.")

    with exit_codes():
        asyncio.run(run())


@asynccontextmanager
async def _ledger(data_dir: DataDir) -> AsyncIterator[Ledger]:
    settings = load_settings(given({"data_dir": data_dir}))
    prepare_folder(settings.data_dir)
    async with open_ledger(settings.ledger_url) as ledger:
        yield ledger
