"""Which pictures a question brings, and where they stand among its passages."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError, InvalidInput
from penstock.pipeline import media
from penstock.pipeline.intake import Intake
from penstock.pipeline.picture_finder import PictureFinder, blend
from penstock.pipeline.retrieve import Retriever
from penstock.testing.clip_house import open_clip_house, png
from penstock.testing.house import House
from penstock.types import Chunk, ChunkKind, Collection, CollectionOptions, Hit

CLIP = Path(__file__).parents[1] / "models" / "golden" / "clip"
COLOURS = ("navy", "crimson", "gold")


def hit(name: str, score: float, kind: ChunkKind = "text", picture: int | None = None, **more: Any) -> Hit:
    chunk = Chunk(
        id=f"{name} {kind}",
        document_id=name,
        version_id=name,
        collection_id="col",
        position=0,
        text=name,
        start=0,
        end=0,
        tokens=1,
        kind=kind,
        picture=picture,
    )
    return Hit(chunk=chunk, document_name=name, score=score, **more)


def names(hits: list[Hit]) -> list[str]:
    return [one.document_name for one in hits]


def test_a_picture_stands_where_its_score_puts_it_and_passages_keep_their_order() -> None:
    passages = [hit("a", 0.4, rerank_score=0.9), hit("b", 0.8, rerank_score=0.5), hit("c", 0.1, rerank_score=0.1)]
    pictures = [hit("p", 0.95, "picture", 1), hit("q", 0.3, "picture", 1)]
    assert names(blend(passages, pictures, 10)) == ["p", "a", "b", "q", "c"]


def test_pictures_take_a_third_of_the_room_at_most_and_bad_ones_none() -> None:
    passages = [hit(f"t{n}", 0.5 - n / 100) for n in range(9)]
    pictures = [hit(f"p{n}", 0.9, "picture", 1) for n in range(9)]
    assert names(blend(passages, pictures, 9)) == ["p0", "p1", "p2", *(f"t{n}" for n in range(6))]
    assert names(blend(passages, [hit("bad", 0.1, "picture", 1)], 9)) == [f"t{n}" for n in range(9)]
    assert names(blend(passages[:1], [hit("bad", 0.1, "picture", 1)], 9)) == ["t0", "bad"], "there is nothing else"


def test_a_picture_and_its_caption_are_one_hit() -> None:
    caption, picture = hit("p", 0.8, "caption", 1), hit("p", 0.5, "picture", 1, image_score=0.27)
    [one] = blend([caption], [picture], 5)
    assert (one.chunk.kind, one.image_score) == ("caption", 0.27)
    [one] = blend([replace(caption, score=0.3)], [picture], 5)
    assert one.chunk.kind == "picture"


@pytest.fixture
async def house(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    compiled = tmp_path_factory.getbasetemp() / "models"
    async with open_clip_house(tmp_path, clip=CLIP, compiled=compiled) as opened:
        for colour in COLOURS:
            await opened.ingest(f"{colour}.png", png(colour), "pictures", media.PNG)
        yield opened


async def collection(house: House) -> Collection:
    return await house.ledger.get_collection("default", "pictures")


def retriever(house: House) -> Retriever:
    return Retriever(house.ledger, house.index, house.models)


async def test_the_picture_that_looks_like_the_image_is_first(house: House) -> None:
    for colour in COLOURS:
        found = await retriever(house).retrieve(await collection(house), "", limit=3, image=png(colour))
        assert names(list(found.hits))[0] == f"{colour}.png"
        assert found.hits[0].image_score == pytest.approx(1.0, abs=0.01)
        assert found.hits[0].score > 0.9
        assert "pictures" in found.timings_ms


async def test_words_bring_pictures_beside_passages(house: House) -> None:
    await house.ingest("water.txt", b"Water is wet.", "pictures")
    found = await retriever(house).retrieve(await collection(house), "Is water wet?", limit=10)
    assert {one.chunk.kind for one in found.hits} == {"text", "picture"}
    assert len(found.hits) == 4
    assert not found.degraded


async def test_a_filter_and_a_delete_hold_for_pictures(house: House) -> None:
    found = await retriever(house).retrieve(
        await collection(house), "", limit=3, image=png("navy"), filter={"city": "Graz"}
    )
    assert not found.hits
    documents = {one.name: one.id for one in (await house.ledger.list_documents("default", "pictures")).documents}
    await Intake(house.ledger, house.jobs).delete("default", documents["navy.png"])
    found = await retriever(house).retrieve(await collection(house), "", limit=3, image=png("navy"))
    assert set(names(list(found.hits))) == {"crimson.png", "gold.png"}


async def test_without_the_model_words_are_answered_from_passages_and_an_image_is_not(house: House) -> None:
    await house.ingest("water.txt", b"Water is wet.", "pictures")
    house.images = None
    found = await retriever(house).retrieve(await collection(house), "Is water wet?", limit=3)
    assert names(list(found.hits)) == ["water.txt"]
    assert found.degraded
    with pytest.raises(ConfigError, match="no image embedder"):
        await retriever(house).retrieve(await collection(house), "", limit=3, image=png("navy"))


async def test_a_collection_without_an_image_model_cannot_be_searched_by_image(house: House) -> None:
    finder = PictureFinder(house.ledger, house.index, house.models)
    plain = replace(await collection(house), options=CollectionOptions())
    with pytest.raises(InvalidInput, match="no image model"):
        await finder.find(plain, "", png("navy"), limit=3, where=None)
    assert not (await finder.find(plain, "Water?", png("navy"), limit=3, where=None)).hits
