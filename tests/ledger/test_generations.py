"""Generations, on every engine: a collection moves to another place in the index without losing a document."""

from collections.abc import Callable

import pytest

from penstock.errors import Conflict, NotFound, Unavailable
from penstock.ledger import Ledger
from penstock.ledger.base import NewVersion
from penstock.types import Chunk, Collection, CollectionOptions

Upload = Callable[..., NewVersion]
Pieces = Callable[..., list[Chunk]]
OTHER = CollectionOptions(embedding_model="other")


async def test_a_collection_is_searched_elsewhere_after_the_switch(ledger: Ledger, collection: Collection) -> None:
    assert collection.index_id == collection.id
    started = await ledger.generations.start("acme", "docs", "idx_1", OTHER, "job_1")
    assert (started.collection_id, started.options, started.cursor) == (collection.id, OTHER, "")
    assert await ledger.generations.all_building() == [started]
    with pytest.raises(Conflict, match="running"):
        await ledger.generations.start("acme", "docs", "idx_2", OTHER, "job_2")
    assert await ledger.generations.move("idx_1", "chk_5", 5)
    moved = await ledger.generations.building_of(collection.id)
    assert moved is not None
    assert (moved.cursor, moved.done) == ("chk_5", 5)
    before = await ledger.get_collection("acme", "docs")
    assert (before.index_id, before.options) == (collection.id, collection.options)
    assert await ledger.generations.switch("idx_1")
    after = await ledger.get_collection("acme", "docs")
    assert (after.index_id, after.options, after.version) == ("idx_1", OTHER, collection.version + 1)
    assert await ledger.generations.switch("idx_1"), "again: a job may run twice"
    assert (await ledger.get_collection("acme", "docs")).version == after.version
    assert await ledger.generations.retired(older_than_s=0) == [collection.id]
    await ledger.generations.forget(collection.id)
    assert await ledger.generations.retired(older_than_s=0) == []


async def test_what_arrives_meanwhile_must_be_in_both_places(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [accepted] = await ledger.accept("acme", "docs", [upload()])
    document, old = accepted.document, collection.id

    async def finish(*index_ids: str) -> bool:
        return await ledger.finish_version(
            document.version_id, pieces(document), pages=1, index_ids=frozenset(index_ids)
        )

    assert (await ledger.get_version(document.version_id)).building is None
    await ledger.generations.start("acme", "docs", "idx_1", OTHER, "job_1")
    building = (await ledger.get_version(document.version_id)).building
    assert building is not None
    assert (building.id, building.options) == ("idx_1", OTHER)
    with pytest.raises(Unavailable, match="reindex"):
        await finish(old)
    await ledger.generations.switch("idx_1")
    with pytest.raises(Unavailable, match="reindex"):
        await finish(old)
    assert await finish(old, "idx_1")
    assert (await ledger.get_collection("acme", "docs")).chunks == 2


async def test_an_abandoned_one_is_never_switched_to(ledger: Ledger, collection: Collection) -> None:
    await ledger.generations.start("acme", "docs", "idx_1", OTHER, "job_1")
    await ledger.generations.abandon("idx_1")
    assert not await ledger.generations.switch("idx_1")
    assert not await ledger.generations.move("idx_1", "chk", 1)
    assert await ledger.generations.building("idx_1") is None
    assert (await ledger.get_collection("acme", "docs")).index_id == collection.id
    assert await ledger.generations.retired(older_than_s=0) == ["idx_1"]
    assert await ledger.generations.retired(older_than_s=10) == []
    await ledger.generations.start("acme", "docs", "idx_2", OTHER, "job_2")


async def test_garbage_is_to_leave_every_place(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [accepted] = await ledger.accept("acme", "docs", [upload()])
    await ledger.finish_version(accepted.document.version_id, pieces(accepted.document), pages=1)
    await ledger.generations.start("acme", "docs", "idx_1", OTHER, "job_1")
    await ledger.delete_document("acme", accepted.document.id)
    [garbage] = await ledger.garbage()
    assert list(garbage.index_ids) == [collection.id, "idx_1"]


async def test_a_deleted_collection_leaves_every_place(ledger: Ledger, collection: Collection) -> None:
    await ledger.generations.start("acme", "docs", "idx_1", OTHER, "job_1")
    await ledger.delete_collection("acme", "docs")
    assert not await ledger.generations.switch("idx_1")
    assert sorted(await ledger.generations.retired(older_than_s=0)) == sorted([collection.id, "idx_1"])


@pytest.mark.case(34)
async def test_a_collection_of_another_tenant_is_not_reindexed(ledger: Ledger, collection: Collection) -> None:
    with pytest.raises(NotFound):
        await ledger.generations.start("other", "docs", "idx_1", OTHER, "job_1")
