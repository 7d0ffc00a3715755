"""Batches, on every engine: gathered once whoever dies, counted by state, cancelled and retried as a whole."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from penstock.errors import Conflict, InvalidInput, NotFound
from penstock.ledger import Ledger
from penstock.ledger.base import Accepted, NewVersion
from penstock.ledger.batch_records import NewBatch, NewItem, NewSource, Position, SourceKind
from penstock.types import Batch, BatchItemState, BatchState, Chunk, Collection, DocumentStatus, Failure

Upload = Callable[..., NewVersion]
Pieces = Callable[..., list[Chunk]]
REFUSED = Failure(code="too_large", message="It is too large.")


async def started(ledger: Ledger, *sources: NewSource, key: str | None = None, fingerprint: str = "f") -> Batch:
    new = NewBatch(job_id="job_b", sources=sources, idempotency_key=key, fingerprint=fingerprint)
    return (await ledger.batches.create("acme", "docs", new))[0]


async def gathered(ledger: Ledger, batch: Batch, *items: NewItem) -> Sequence[Accepted]:
    """Adds and closes."""
    accepted = await ledger.batches.add(batch.id, Position(), Position(entry="1"), items)
    assert accepted is not None
    assert await ledger.batches.close(batch.id)
    return accepted


async def states(ledger: Ledger, batch: Batch) -> dict[str, BatchItemState]:
    return {item.name: item.state for item in (await ledger.batches.items("acme", batch.id)).items}


async def test_the_life_of_a_batch(ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces) -> None:
    batch = await started(ledger, NewSource(kind=SourceKind.ARCHIVE, name="a.zip", sha256="aa"))
    assert (batch.state, batch.counts) == (BatchState.GATHERING, {})
    assert [work.batch_id for work in await ledger.batches.gathering()] == [batch.id]
    [source] = await ledger.batches.sources(batch.id)
    assert (source.seq, source.kind, source.name) == (1, SourceKind.ARCHIVE, "a.zip")
    [first, second] = await gathered(
        ledger,
        batch,
        NewItem(source=1, name="a", version=upload("a")),
        NewItem(source=1, name="b", error=REFUSED),
        NewItem(source=1, name="c", version=upload("c")),
    )
    batch = await ledger.batches.get("acme", batch.id)
    assert (batch.state, batch.items, batch.unchanged) == (BatchState.RUNNING, 3, 0)
    assert batch.counts == {BatchItemState.PENDING: 2, BatchItemState.REFUSED: 1}
    await ledger.finish_version(first.document.version_id, pieces(first.document), pages=1)
    await ledger.fail_version(second.document.version_id, REFUSED)
    batch = await ledger.batches.get("acme", batch.id)
    assert batch.state is BatchState.DONE
    assert await states(ledger, batch) == {"a": "done", "b": "refused", "c": "failed"}
    failed = await ledger.batches.items(
        "acme", batch.id, frozenset({BatchItemState.FAILED, BatchItemState.REFUSED}), limit=1
    )
    assert [(item.name, item.error) for item in failed.items] == [("b", REFUSED)]
    rest = await ledger.batches.items("acme", batch.id, frozenset({BatchItemState.FAILED}), cursor=failed.cursor)
    assert [(item.name, item.job_id, item.error) for item in rest.items] == [("c", "job_c_1", REFUSED)]
    assert rest.cursor is None
    assert await ledger.batches.gathering() == []


async def test_what_is_added_is_added_once(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    batch = await started(ledger, NewSource(kind=SourceKind.FOLDER, name="/srv"))
    item = NewItem(source=1, name="a", version=upload("a"))
    assert await ledger.batches.add(batch.id, Position(), Position(entry="a"), [item]) is not None
    assert await ledger.batches.add(batch.id, Position(), Position(entry="a"), [item]) is None, "a zombie's"
    work = await ledger.batches.work(batch.id)
    assert work is not None
    assert work.position == Position(entry="a")
    assert (await ledger.batches.get("acme", batch.id)).items == 1


async def test_an_item_that_breaks_takes_the_rest_back(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    batch = await started(ledger, NewSource(kind=SourceKind.FOLDER, name="/srv"))
    items = [NewItem(source=1, name="a", version=upload("a")), NewItem(source=1, name="\0", error=REFUSED)]
    with pytest.raises(InvalidInput):
        await ledger.batches.add(batch.id, Position(), Position(entry="a"), items)
    assert (await ledger.batches.get("acme", batch.id)).items == 0
    assert not await ledger.pending_versions()


async def test_documents_that_were_there_are_unchanged(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    [there] = await ledger.accept("acme", "docs", [upload("a")])
    batch = await started(ledger, NewSource(kind=SourceKind.FILE, name="a"))
    [accepted] = await gathered(ledger, batch, NewItem(source=1, name="a", version=upload("a")))
    assert not accepted.created
    assert (await ledger.batches.get("acme", batch.id)).unchanged == 1
    await ledger.batches.cancel("acme", batch.id)
    assert (await ledger.get_document("acme", there.document.id)).status is DocumentStatus.PENDING, "not ours to cancel"


@pytest.mark.case(10)
async def test_cancel_ends_all_that_is_unfinished(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    batch = await started(ledger, NewSource(kind=SourceKind.FOLDER, name="/srv"))
    accepted = await ledger.batches.add(
        batch.id,
        Position(),
        Position(entry="b"),
        [NewItem(source=1, name=name, version=upload(name)) for name in "ab"],
    )
    assert accepted is not None
    await ledger.finish_version(accepted[0].document.version_id, pieces(accepted[0].document), pages=1)
    assert set(await ledger.batches.cancel("acme", batch.id)) == {"job_b_1", "job_b"}
    assert (await ledger.batches.get("acme", batch.id)).state is BatchState.CANCELLED
    assert await states(ledger, batch) == {"a": "done", "b": "cancelled"}
    assert (await ledger.get_document("acme", accepted[1].document.id)).status is DocumentStatus.CANCELLED
    assert not await ledger.finish_version(accepted[1].document.version_id, pieces(accepted[1].document), pages=1)
    assert await ledger.batches.add(batch.id, Position(entry="b"), Position(entry="c"), []) is None
    assert await ledger.batches.cancel("acme", batch.id) == []


async def test_a_batch_that_failed_goes_on_where_it_stopped(
    ledger: Ledger, collection: Collection, upload: Upload
) -> None:
    batch = await started(ledger, NewSource(kind=SourceKind.ARCHIVE, name="a.zip", sha256="a" * 64))
    await ledger.batches.add(
        batch.id, Position(), Position(entry="7"), [NewItem(source=1, name="a", version=upload("a"))]
    )
    assert await ledger.batches.close(batch.id, REFUSED)
    failed = await ledger.batches.get("acme", batch.id)
    assert (failed.state, failed.error) == (BatchState.FAILED, REFUSED)
    assert await ledger.live_blobs(["a" * 64]) == {"a" * 64}
    assert await ledger.batches.gather_again("acme", batch.id, "job_2")
    work = await ledger.batches.work(batch.id)
    assert work is not None
    assert (work.position, work.job_id) == (Position(entry="7"), "job_2")
    assert not await ledger.batches.gather_again("acme", batch.id, "job_3"), "it is being gathered"
    assert await ledger.batches.close(batch.id)
    assert await ledger.live_blobs(["a" * 64]) == set(), "what is gathered needs its archive no more"
    assert not await ledger.batches.gather_again("acme", batch.id, "job_3"), "there is nothing to gather"


async def test_urls_that_could_not_be_fetched_are_fetched_again(ledger: Ledger, collection: Collection) -> None:
    urls = [NewSource(kind=SourceKind.URL, name=f"https://example.com/{n}", spec={"n": n}) for n in range(2)]
    batch = await started(ledger, *urls)
    items = [NewItem(source=n + 1, name=url.name, error=REFUSED) for n, url in enumerate(urls)]
    await ledger.batches.add(batch.id, Position(), Position(source=3), items)
    await ledger.batches.close(batch.id)
    assert await ledger.batches.gather_again("acme", batch.id, "job_2")
    again = await ledger.batches.sources(batch.id, first=3)
    assert [(source.seq, source.name, source.spec) for source in again] == [
        (3, urls[0].name, {"n": 0}),
        (4, urls[1].name, {"n": 1}),
    ]
    assert (await ledger.batches.get("acme", batch.id)).counts == {}


@pytest.mark.case(9)
async def test_one_key_is_one_batch(ledger: Ledger, collection: Collection) -> None:
    batches = await asyncio.gather(*(started(ledger, key="k") for _ in range(20)))
    assert len({batch.id for batch in batches}) == 1
    with pytest.raises(Conflict, match="Idempotency-Key"):
        await started(ledger, key="k", fingerprint="other")
    assert (await started(ledger, key="k2")).id != batches[0].id


async def test_batches_are_listed_newest_first(ledger: Ledger, collection: Collection) -> None:
    ids = []
    for _ in range(5):
        ids.append((await started(ledger)).id)
        await asyncio.sleep(0.002)  # ids of one millisecond have no order
    first = await ledger.batches.list("acme", limit=3)
    rest = await ledger.batches.list("acme", cursor=first.cursor, limit=3)
    assert [batch.id for batch in [*first.batches, *rest.batches]] == ids[::-1]
    assert rest.cursor is None


@pytest.mark.case(34)
async def test_a_batch_of_another_tenant_is_not_found(ledger: Ledger, collection: Collection) -> None:
    batch = await started(ledger)
    for call in (ledger.batches.get, ledger.batches.items, ledger.batches.cancel):
        with pytest.raises(NotFound):
            await call("other", batch.id)
    with pytest.raises(NotFound):
        await ledger.batches.gather_again("other", batch.id, "job")
    assert not (await ledger.batches.list("other")).batches


async def test_a_deleted_collection_takes_nothing_more(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    batch = await started(ledger)
    await ledger.delete_collection("acme", "docs")
    with pytest.raises(NotFound, match="deleted"):
        await ledger.batches.add(
            batch.id, Position(), Position(entry="a"), [NewItem(source=1, name="a", version=upload("a"))]
        )


async def test_replaced_and_deleted_documents_are_gone_from_a_batch_in_the_end(
    ledger: Ledger, collection: Collection, upload: Upload, advance: Callable[[float], None]
) -> None:
    batch = await started(ledger)
    [accepted] = await gathered(ledger, batch, NewItem(source=1, name="a", version=upload("a")))
    await ledger.delete_document("acme", accepted.document.id)
    for _ in range(2):  # once to forget the chunks, once more for the rows of long ago
        await ledger.forget([garbage.version_id for garbage in await ledger.garbage()])
        advance(4000)
    await ledger.forget([])
    assert await states(ledger, batch) == {"a": "gone"}


async def test_old_batches_are_forgotten_with_all_that_is_theirs(
    ledger: Ledger, collection: Collection, upload: Upload, advance: Callable[[float], None]
) -> None:
    old = await started(ledger, NewSource(kind=SourceKind.URL, name="https://example.com/"))
    [accepted] = await gathered(ledger, old, NewItem(source=1, name="a", version=upload("a")))
    gathering = await started(ledger)
    advance(1000)
    assert await ledger.batches.forget(older_than_s=2000) == 0
    assert await ledger.batches.forget(older_than_s=500) == 1
    with pytest.raises(NotFound):
        await ledger.batches.get("acme", old.id)
    assert (await ledger.batches.get("acme", gathering.id)).state is BatchState.GATHERING
    assert (await ledger.get_document("acme", accepted.document.id)).name == "a", "the documents stay"
