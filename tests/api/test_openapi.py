"""The OpenAPI document tells the truth: whatever a client sends, the answer is a documented one."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings

EXAMPLES = int(os.environ.get("PENSTOCK_TEST_EXAMPLES", "5"))
"""Of each operation, good ones and as many bad ones."""

NOT_CHECKED = {"positive_data_acceptance"}
"""A schema cannot say all that a name or a cursor must be; such input is refused with a documented 422."""


async def test_every_route_says_what_it_does_and_how_it_refuses(app: FastAPI) -> None:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    assert set(response["content"]) == {"application/problem+json"}, (method, path, status)


async def test_every_reference_of_the_document_leads_somewhere(app: FastAPI) -> None:
    document = app.openapi()

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                yield reference
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                yield from references(item)

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


class Live:
    """A server with a worker in a thread of its own, for clients that block."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.url = ""
        self.key: str | None = None

    def __enter__(self) -> "Live":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._opened() as (self.url, self.key):
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(params=["open", "key"])
def live(request: pytest.FixtureRequest, tmp_path: Path, serving: Callable[[Path], Any]) -> Iterator[Live]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[str, str | None]]:
        async with AsyncExitStack() as stack:
            services, url = await stack.enter_async_context(serving(tmp_path))
            key = (await services.ledger.create_api_key("default", "test", ()))[1] if request.param == "key" else None
            yield url, key

    with Live(opened) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.case(32)
def test_whatever_is_sent_the_answer_is_a_documented_one(live: Live) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    headers = {"X-API-Key": live.key} if live.key else {}
    document = httpx.get(f"{live.url}/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    skipped = NOT_CHECKED | (set() if live.key else {"ignored_auth"})
    excluded = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in skipped]
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                case.call_and_validate(base_url=live.url, headers=headers, excluded_checks=excluded, timeout=20)

            if (
                mode is schemathesis.GenerationMode.POSITIVE
                or "parameters" in operation.definition.raw
                or operation.body
            ):
                check()
