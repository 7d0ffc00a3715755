"""How many requests a key may make, and how many connections a process takes."""

import asyncio
from dataclasses import replace

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from penstock.api.main import create_app
from penstock.api.protocol import PatientProtocol
from penstock.api.rates import RateLimiter
from penstock.app import Services

pytestmark = pytest.mark.case(34)


def test_a_bucket_empties_and_fills() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    assert [limiter.take("a") for _ in range(10)] == [0.0] * 10, "ten seconds' worth at once"
    assert limiter.take("a") == pytest.approx(1.0)
    assert limiter.take("b") == 0.0, "another key has its own"
    now = 0.75
    assert limiter.take("a") == pytest.approx(0.25), "what was refused is not counted"
    now = 1.0
    assert limiter.take("a") == 0.0
    now = 1000.0
    assert [limiter.take("a") > 0 for _ in range(11)] == [False] * 10 + [True]


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(services: Services) -> None:
    api = services.settings.api.model_copy(update={"rate_limit_per_minute": 12})
    settings = services.settings.model_copy(update={"api": api})
    keys = [(await services.ledger.create_api_key(tenant, "k", ()))[1] for tenant in ("acme", "other")]
    app = create_app(replace(services, settings=settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        mine, other = ({"x-api-key": key} for key in keys)
        replies = [await client.get("/v1/jobs", headers=mine) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert replies[-1].headers["retry-after"] == "5"
        assert replies[-1].json()["code"] == "overloaded"
        assert (await client.get("/v1/jobs", headers=other)).status_code == 200
        assert (await client.get("/healthz", headers=mine)).status_code == 200


async def test_a_connection_too_many_is_told_to_come_back(app: FastAPI) -> None:
    config = uvicorn.Config(app, port=0, http=PatientProtocol, log_level="error", lifespan="off", limit_concurrency=2)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    with config.bind_socket() as listener:
        await server.startup([listener])
        address = listener.getsockname()
        lines = [await asyncio.open_connection(*address) for _ in range(2)]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
            refused = await client.get("/healthz")
            for _, writer in lines:
                writer.close()
                await writer.wait_closed()
            taken = await client.get("/healthz")
        server.force_exit = True
        await server.shutdown([listener])
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["code"]) == (503, "1", "unavailable")
    assert taken.status_code == 200
