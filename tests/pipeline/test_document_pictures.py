"""Pictures in documents: found, embedded, and kept right through all that happens to a document."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from penstock.cache import CacheOptions, open_cache
from penstock.errors import InvalidInput, ParseError
from penstock.pipeline import media
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.intake import Intake, IntakeOptions
from penstock.pipeline.mending import Mender
from penstock.pipeline.parsing.records import FoundPicture, PlainPicture
from penstock.pipeline.picture_shelf import PictureShelf
from penstock.pipeline.reindex import Reindexer
from penstock.pipeline.reindexing import start_reindex
from penstock.pipeline.upkeep import Upkeep, UpkeepOptions
from penstock.stores import IndexQuery
from penstock.stores.places import pictures_place
from penstock.testing.clip_house import open_clip_house, pdf, png
from penstock.testing.house import House, report
from penstock.types import Chunk, CollectionOptions, DocumentStatus

CLIP = Path(__file__).parents[1] / "models" / "golden" / "clip"
COLOURS = ("navy", "crimson", "gold", "darkgreen")


@pytest.fixture
async def house(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    compiled, index = tmp_path_factory.getbasetemp() / "models", f"lancedb://{tmp_path / 'index'}"
    async with open_clip_house(tmp_path, clip=CLIP, compiled=compiled, index_url=index) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipeline.document_reader.installed_languages", frozenset)


def upkeep(house: House) -> Upkeep:
    return Upkeep(
        worker_id="wrk",
        ledger=house.ledger,
        jobs=house.jobs,
        index=house.index,
        blobs=house.blobs,
        options=UpkeepOptions(retired_s=0),
        intake=IntakeOptions(),
    )


def reindexer(house: House) -> Reindexer:
    return Reindexer(house.ledger, house.index, house.writer, house.models, house.cache, house.pictures)


async def rows(house: House) -> int:
    """How many pictures the index holds where the collection is searched."""
    return await house.index.count(pictures_place((await house.ledger.get_collection("default", "pictures")).index_id))


async def nearest(house: House, image: bytes) -> Sequence[Chunk]:
    """The visible pictures, the one most like the image first."""
    assert house.images is not None
    collection = await house.ledger.get_collection("default", "pictures")
    [vector] = await house.images.embed_images([image])
    found = await house.index.search(pictures_place(collection.index_id), IndexQuery(k=50, vector=vector))
    ranked = sorted(found.candidates, key=lambda one: -(one.dense or 0))
    chunks = await house.ledger.get_chunks(collection.id, [one.chunk_id for one in ranked])
    return [chunks[one.chunk_id].chunk for one in ranked if one.chunk_id in chunks]


async def test_images_that_nobody_can_read_are_found_by_what_they_show(house: House) -> None:
    for colour in COLOURS:
        result = await house.ingest(f"{colour}.png", png(colour), "pictures", media.PNG)
        assert (result.chunks, result.embedded) == (1, 1)
    for colour in COLOURS:
        best = (await nearest(house, png(colour)))[0]
        assert (best.text, best.kind, best.picture, best.page) == (f"{colour}.png", "picture", 1, None)
    [document] = (await house.ledger.list_documents("default", "pictures", limit=1)).documents
    assert document.status is DocumentStatus.DONE
    assert "found by what it shows" in document.notes[-1]
    assert not house.embedder.texts, "no model of texts had anything to do"


async def test_without_an_image_model_such_an_image_fails_as_ever(house: House) -> None:
    document = await house.upload("a.png", png("navy"), media.PNG)
    with pytest.raises(ParseError) as raised:
        await house.ingestor.ingest(document.version_id, report)
    assert raised.value.code == "needs_ocr"


async def test_pictures_in_a_pdf_have_its_pages(house: House) -> None:
    await house.ingest("scan.pdf", pdf(*COLOURS[:3]), "pictures", media.PDF)
    assert await rows(house) == 3
    best = (await nearest(house, png("gold")))[0]
    assert (best.text, best.page, best.picture) == ("Picture 3 of scan.pdf", 3, 3)


async def test_pictures_in_real_office_files(house: House, shared_data: Path) -> None:
    file = shared_data / "docs" / "good" / "contains-pictures.docx"
    result = await house.ingest(file.name, file.read_bytes(), "pictures", media.DOCX)
    collection = await house.ledger.get_collection("default", "pictures")
    assert await rows(house) > 0
    assert await house.index.count(collection.index_id) + await rows(house) == collection.chunks == result.chunks


async def test_a_new_version_replaces_and_a_delete_removes_the_pictures(house: House) -> None:
    await house.ingest("a.pdf", pdf("navy", "gold"), "pictures", media.PDF)
    await house.ingest("a.pdf", pdf("crimson"), "pictures", media.PDF)
    assert [chunk.text for chunk in await nearest(house, png("navy"))] == ["Picture 1 of a.pdf"]
    await upkeep(house).purge()
    assert await rows(house) == 1
    [document] = (await house.ledger.list_documents("default", "pictures")).documents
    await Intake(house.ledger, house.jobs).delete("default", document.id)
    assert not await nearest(house, png("crimson"))
    await upkeep(house).purge()
    assert await rows(house) == 0


async def test_a_deleted_collection_leaves_nothing_behind(house: House, tmp_path: Path) -> None:
    await house.ingest("a.png", png("navy"), "pictures", media.PNG)
    assert len(list((tmp_path / "index").glob("*_pictures.lance"))) == 1
    await house.ledger.delete_collection("default", "pictures")
    await upkeep(house).purge()
    assert not list((tmp_path / "index").glob("*.lance"))


async def test_a_reindex_takes_the_pictures_along(house: House) -> None:
    await house.ingest("a.pdf", pdf(*COLOURS), "pictures", media.PDF)
    await house.ingest("note.txt", b"Water is wet.", "pictures")
    job = await start_reindex(house.ledger, house.jobs, "default", "pictures")
    new = str(job.payload["generation_id"])
    await house.ingest("late.png", png("black"), "pictures", media.PNG)
    assert (await reindexer(house).reindex(new, 6, report)).switched
    assert await rows(house) == 5
    assert (await nearest(house, png("gold")))[0].page == 3
    assert (await nearest(house, png("black")))[0].text == "late.png"
    await upkeep(house).purge()
    assert await Mender(house.ledger, house.jobs, house.index).mend() == 0


async def test_an_image_model_is_changed_by_a_reindex_and_added_by_a_copy_only(house: House) -> None:
    await house.ingest("a.png", png("navy"), "pictures", media.PNG)
    job = await start_reindex(house.ledger, house.jobs, "default", "pictures", image_model="other")
    assert (await reindexer(house).reindex(str(job.payload["generation_id"]), 1, report)).switched
    assert (await house.ledger.get_collection("default", "pictures")).options.image_model == "other"
    assert await rows(house) == 1
    await house.ledger.create_collection("default", "plain", CollectionOptions())
    with pytest.raises(InvalidInput, match="Copy it"):
        await start_reindex(house.ledger, house.jobs, "default", "plain", image_model="clip")


async def test_lost_pictures_are_mended(house: House) -> None:
    await house.ingest("a.pdf", pdf("navy", "gold"), "pictures", media.PDF)
    collection = await house.ledger.get_collection("default", "pictures")
    await house.index.drop(pictures_place(collection.index_id))
    mender = Mender(house.ledger, house.jobs, house.index)
    assert await mender.mend() == 1
    [job] = await house.jobs.lease("wrk", kinds=["reindex"], n=9)
    assert (await reindexer(house).reindex(str(job.payload["generation_id"]), 2, report)).switched
    assert await rows(house) == 2
    assert await mender.mend() == 0


async def test_the_same_pictures_again_are_not_embedded(house: House) -> None:
    data = pdf("navy", "gold")
    await house.ingest("a.pdf", data, "pictures", media.PDF)
    await house.cache.__aexit__(None, None, None)  # what was kept is written
    result = await house.ingest("b.pdf", data, "pictures", media.PDF)
    assert (result.chunks, result.embedded) == (2, 0)


async def test_a_picture_that_cannot_be_drawn_any_more_is_found_by_its_words(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.ingest("a.pdf", pdf("navy"), "pictures", media.PDF)
    job = await start_reindex(house.ledger, house.jobs, "default", "pictures")
    monkeypatch.setattr("penstock.pipeline.parsing.pool.WITH_PICTURES", frozenset())
    async with open_cache("memory://", CacheOptions()) as empty, ContentCache(empty, 60.0) as house.cache:
        assert (await reindexer(house).reindex(str(job.payload["generation_id"]), 1, report)).switched
    assert await rows(house) == 1, "or it would be mended for ever"


def test_the_shelf_keeps_the_newest_within_its_bound() -> None:
    def found(size: int) -> list[FoundPicture]:
        picture = PlainPicture(data=bytes(size), media_type="image/png", width=1, height=1)
        return [FoundPicture(number=1, page=None, sha256="", picture=picture)]

    shelf = PictureShelf(max_bytes=100)
    for name, size in (("a", 60), ("b", 30), ("c", 40), ("d", 101)):
        shelf.put(name, found(size))
    assert [name for name in "abcd" if shelf.take(name)] == []
    shelf.put("e", found(100))
    assert shelf.take("e")
    assert shelf.take("e") is None
