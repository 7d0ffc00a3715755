"""`/v1/models`, and collections that name models."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from penstock.api.main import create_app
from penstock.app import Services
from penstock.jobs import WorkerOptions
from penstock.jobs.worker import JobContext, Worker
from penstock.models.options import ModelsOptions
from penstock.models.vision import VisionOptions
from penstock.types import JSON, LoadedModel

MODELS = ModelsOptions.model_validate(
    {
        "embedding": "small",
        "embedders": {
            "small": {"model": "/srv/models/small-zh", "dimensions": 128},
            "cloud": {"engine": "openai", "base_url": "https://u:p@api.example/v1", "api_key": "sk-x", "model": "e3"},
        },
        "rerankers": {"cross": {"model": "owner/cross"}},
        "image_embedders": {"clip": {"model": "ViT-B/32"}},
        "aliases": {"old": "small"},
        "reranker": "cross",
        "preload": ["default"],
    }
)


LOADED = LoadedModel(name="clip", kind="clip", dimensions=512, device="cpu", precision="f32", memory_bytes=600)


async def _no_work(_: JobContext) -> JSON:
    return None


async def _warm() -> Sequence[str]:
    return ["small"]


@pytest.fixture
async def named(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A server with these models, and one worker that has loaded the small one."""
    vision = VisionOptions(base_url="https://vl.example/v1", model="vl", api_key=SecretStr("sk-y"))
    settings = services.settings.model_copy(update={"models": MODELS, "vision": vision})
    changed = replace(services, settings=settings)
    running = Worker(
        services.jobs, {"search": _no_work}, WorkerOptions(grace_s=0.1), warm=_warm, loaded=lambda: [LOADED]
    )
    transport = httpx.ASGITransport(create_app(changed))
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    async with client, asyncio.TaskGroup() as group:
        group.create_task(running.run())
        yield client
        running.stop()


async def test_models_are_listed_by_the_names_that_collections_use(named: httpx.AsyncClient, until: Any) -> None:
    async def listed() -> dict[str, Any]:
        reply = (await named.get("/v1/models")).json()
        assert reply["object"] == "list"
        return {model["id"]: model for model in reply["data"]}

    async def loaded() -> bool:
        return bool((await listed())["small"]["workers"] == 1)

    await until(loaded)
    models = await listed()
    assert list(models) == ["default", "small", "cloud", "old", "cross", "clip", "vision"]
    told = ("kind", "dimensions", "device", "memory_bytes", "loaded")
    assert [models["clip"][one] for one in told] == ["image", 512, "cpu", 600, True]
    assert [models["vision"][one] for one in told] == ["vision", 0, "remote", 0, False]
    assert models["clip"]["model"] == "openai/clip-vit-base-patch32"
    assert {name: model["workers"] for name, model in models.items() if model["workers"]} == {
        "default": 1,
        "small": 1,
        "old": 1,
    }
    assert models["small"]["model"] == "small-zh"  # the folder's place is nobody's business
    assert models["small"]["dimensions"] == 128
    assert models["cloud"]["model"] == "e3 at api.example"
    assert [name for name, model in models.items() if model["default"]] == ["default", "cross", "vision"]
    assert [name for name, model in models.items() if model["preloaded"]] == ["default", "small", "old"]
    assert models["cross"]["kind"] == "rerank"


async def test_nothing_secret_is_listed(named: httpx.AsyncClient) -> None:
    text = (await named.get("/v1/models")).text
    assert not any(secret in text for secret in ("sk-x", "u:p", "/srv"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"embedding_model": "/etc"}, "There are: default, small, cloud, old"),
        ({"embedding_model": "owner/anything"}, "no embedding model"),
        ({"reranker": "other"}, "There are: cross, none"),
        ({"image_model": "small"}, "There are: clip"),
    ],
)
async def test_only_models_of_the_settings_may_be_named(
    named: httpx.AsyncClient, options: dict[str, str], said: str
) -> None:
    refused = await named.post("/v1/collections", json={"name": "c", **options})
    assert refused.status_code == 422
    assert said in refused.json()["detail"]


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_model": "cloud"},
        {"reranker": "none"},
        {"reranker": "cross"},
        {"image_model": "clip", "captions": True},
    ],
)
async def test_models_of_the_settings_are_kept(named: httpx.AsyncClient, options: dict[str, str]) -> None:
    made = await named.post("/v1/collections", json={"name": "c", **options})
    assert made.status_code == 201
    assert options.items() <= made.json()["options"].items()


async def test_an_image_model_is_added_by_a_copy(named: httpx.AsyncClient, services: Services) -> None:
    await named.post("/v1/collections", json={"name": "plain"})
    for path, body in (("copy", {"name": "seen", "image_model": "no"}), ("reindex", {"image_model": "no"})):
        refused = await named.post(f"/v1/collections/plain/{path}", json=body)
        assert (refused.status_code, "There are: clip" in refused.json()["detail"]) == (422, True)
    refused = await named.post("/v1/collections/plain/reindex", json={"image_model": "clip"})
    assert (refused.status_code, "Copy it" in refused.json()["detail"]) == (422, True)
    copied = await named.post("/v1/collections/plain/copy", json={"name": "seen", "image_model": "clip"})
    assert copied.status_code == 202
    options = (await services.ledger.get_collection("default", "seen")).options
    assert (options.image_model, options.captions) == ("clip", False)


async def test_captions_need_somebody_who_sees(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/collections", json={"name": "c", "captions": True})
    assert (refused.status_code, "no model that takes pictures" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reranker": "nobody"},
        {"embedders": {"default": {"model": "m"}}},
        {"embedders": {"a": {"model": "m"}}, "rerankers": {"a": {"model": "m"}}},
        {"embedders": {"a": {"engine": "openai", "model": "m"}}},
        {"embedders": {"a": {"engine": "openai", "model": "m", "base_url": "ftp://x"}}},
        {"embedders": {"a": {"model": ""}}},
        {"embedders": {"a": {"model": "m", "base_url": "http://x/v1"}}},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelsOptions.model_validate(wrong)
