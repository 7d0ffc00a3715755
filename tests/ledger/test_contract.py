"""What every engine of the ledger promises."""

import asyncio
from collections.abc import Callable

import pytest

from penstock.errors import Conflict, InvalidInput, NotFound, Unavailable
from penstock.ledger import Ledger
from penstock.ledger.base import Accepted, NewVersion
from penstock.types import Chunk, Collection, CollectionOptions, Document, DocumentStatus, Failure

Upload = Callable[..., NewVersion]
Pieces = Callable[..., list[Chunk]]
PENDING, DONE, FAILED, CANCELLED = DocumentStatus


async def accept(ledger: Ledger, *uploads: NewVersion, collection: str = "docs") -> list[Document]:
    return [accepted.document for accepted in await ledger.accept("acme", collection, uploads)]


async def visible(ledger: Ledger, collection: Collection) -> dict[str, str]:
    """Text by chunk id, of all that searches could find."""
    return {found.chunk.id: found.chunk.text for found in await ledger.scan_chunks(collection.id)}


async def purge(ledger: Ledger) -> set[str]:
    garbage = {item.version_id for item in await ledger.garbage()}
    await ledger.forget(sorted(garbage))
    return garbage


# --- collections


async def test_a_collection_is_found_by_its_name(ledger: Ledger) -> None:
    options = CollectionOptions(chunk_tokens=100, reranker="cross")
    made = await ledger.create_collection("acme", "城市 巡查".replace(" ", "-"), options)
    assert await ledger.get_collection("acme", "城市-巡查") == made
    assert made.options == options
    assert (made.documents, made.chunks) == (0, 0)


async def test_a_name_is_taken_once_a_tenant(ledger: Ledger, collection: Collection) -> None:
    with pytest.raises(Conflict, match="docs"):
        await ledger.create_collection("acme", "docs", CollectionOptions())
    await ledger.create_collection("other", "docs", CollectionOptions())


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", "x" * 65, "a\0", "\ud800", "a\n", "💧"])
async def test_a_collection_cannot_be_called_so(ledger: Ledger, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        await ledger.create_collection("acme", name, CollectionOptions())


@pytest.mark.parametrize("name", ["a", "2024", "_x", "x.y-z_1", "文档", "हिन्दी", "x" * 64])
async def test_a_collection_can_be_called_so(ledger: Ledger, name: str) -> None:
    assert (await ledger.create_collection("acme", name, CollectionOptions())).name == name


async def test_two_spellings_of_a_name_are_one(ledger: Ledger) -> None:
    made = await ledger.create_collection("acme", "cafe\u0301", CollectionOptions())
    assert await ledger.get_collection("acme", "caf\u00e9") == made


async def test_collections_are_listed_by_name(ledger: Ledger) -> None:
    for tenant, name in [("acme", "b"), ("acme", "a"), ("other", "c")]:
        await ledger.create_collection(tenant, name, CollectionOptions())
    assert [c.name for c in await ledger.list_collections("acme")] == ["a", "b"]
    assert [c.name for c in await ledger.list_collections(None)] == ["a", "b", "c"]


async def test_a_deleted_collection_is_gone_with_all_in_it(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    done, pending = await accept(ledger, upload("a"), upload("b"))
    await ledger.finish_version(done.version_id, pieces(done), pages=1)
    assert (await ledger.delete_collection("acme", "docs")).documents == 1
    with pytest.raises(NotFound):
        await ledger.get_collection("acme", "docs")
    with pytest.raises(NotFound):
        await ledger.get_document("acme", done.id)
    with pytest.raises(NotFound):
        await ledger.delete_collection("acme", "docs")
    assert not await visible(ledger, collection)
    assert not (await ledger.get_version(pending.version_id)).live
    assert not await ledger.finish_version(pending.version_id, pieces(pending), pages=1)
    assert await purge(ledger) == {done.version_id, pending.version_id}
    assert (await ledger.create_collection("acme", "docs", CollectionOptions())).id != collection.id


# --- accept


async def test_an_accepted_document_is_pending(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    [document] = await accept(ledger, upload("年报.pdf", "x", metadata={"year": 2024, "tags": ["a", None]}))
    assert (document.status, document.version, document.searchable_version) == (PENDING, 1, 0)
    assert await ledger.get_document("acme", document.id) == document
    work = await ledger.get_version(document.version_id)
    assert (work.name, work.metadata, work.live) == ("年报.pdf", {"year": 2024, "tags": ["a", None]}, True)
    assert work.collection == collection
    assert work.job_id == document.job_id


@pytest.mark.case(9)
async def test_identical_bytes_are_recognised_in_flight_and_done(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    many = await asyncio.gather(*(ledger.accept("acme", "docs", [upload()]) for _ in range(50)))
    assert sum(accepted.created for [accepted] in many) == 1
    [document] = {accepted.document.version_id: accepted.document for [accepted] in many}.values()
    await ledger.finish_version(document.version_id, pieces(document), pages=1)
    [again] = await ledger.accept("acme", "docs", [upload()])
    assert not again.created
    assert again.document.status is DONE


async def test_the_same_bytes_with_other_metadata_are_a_new_version(
    ledger: Ledger, collection: Collection, upload: Upload
) -> None:
    await accept(ledger, upload(metadata={"a": 1}))
    [document] = await accept(ledger, upload(metadata={"a": 2}))
    assert document.version == 2


async def test_the_same_bytes_under_another_name_are_another_document(
    ledger: Ledger, collection: Collection, upload: Upload
) -> None:
    one, two = await accept(ledger, upload("a"), upload("b"))
    assert one.id != two.id


@pytest.mark.parametrize("end", ["fail", "cancel"])
async def test_bytes_that_failed_are_accepted_anew(
    ledger: Ledger, collection: Collection, upload: Upload, end: str
) -> None:
    [document] = await accept(ledger, upload())
    if end == "fail":
        await ledger.fail_version(document.version_id, Failure(code="parse_failed", message="x"))
    else:
        await ledger.cancel_version(document.version_id)
    [again] = await ledger.accept("acme", "docs", [upload()])
    assert (again.created, again.document.id, again.document.version) == (True, document.id, 2)
    assert (await ledger.get_document("acme", document.id)).status is PENDING


@pytest.mark.case(11)
async def test_a_new_version_supersedes_the_one_on_its_way(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [first] = await accept(ledger, upload(content="1"))
    [second] = await accept(ledger, upload(content="2"))
    assert (second.id, second.version) == (first.id, 2)
    old = await ledger.get_version(first.version_id)
    assert (old.live, old.status) == (False, CANCELLED)
    assert not await ledger.finish_version(first.version_id, pieces(first), pages=1)
    assert not await ledger.reopen_version(first.version_id, "job")
    assert await ledger.finish_version(second.version_id, pieces(second), pages=1)
    assert set(await visible(ledger, collection)) == {chunk.id for chunk in pieces(second)}


async def test_one_name_many_times_in_one_call(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    accepted = await ledger.accept("acme", "docs", [upload(content=c) for c in "1122"])
    assert [(a.created, a.document.version) for a in accepted] == [(True, 1), (False, 1), (True, 2), (False, 2)]
    assert [work.version_id for work in await ledger.pending_versions()] == [accepted[3].document.version_id]
    assert await ledger.get_document("acme", accepted[3].document.id) == accepted[3].document


async def test_accept_is_all_or_nothing(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    with pytest.raises(InvalidInput):
        await ledger.accept("acme", "docs", [upload("good"), upload("bad\0")])
    assert not (await ledger.list_documents("acme")).documents


async def test_accept_of_nothing_and_of_many(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    assert not await ledger.accept("acme", "docs", [])
    many = await ledger.accept("acme", "docs", [upload(f"{i}") for i in range(1234)])
    assert len({a.document.id for a in many}) == 1234
    newer = await ledger.accept("acme", "docs", [upload(f"{i}", "new") for i in range(1234)])
    assert all(a.document.version == 2 for a in newer)
    assert len(await ledger.pending_versions(limit=10_000)) == 1234


@pytest.mark.case(29)
@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs", "C:\\CON", "\u202egnp.exe", "x" * 1024, "a\nb", " ", "💧"]
)
async def test_a_document_may_have_any_name(ledger: Ledger, collection: Collection, upload: Upload, name: str) -> None:
    [document] = await accept(ledger, upload(name))
    assert (await ledger.list_documents("acme", name=name)).documents == [document]


@pytest.mark.case(29)
@pytest.mark.parametrize("name", ["", "x" * 1025, "a\0b", "\udc00"])
async def test_but_not_these(ledger: Ledger, collection: Collection, upload: Upload, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        await accept(ledger, upload(name))


async def test_accept_into_no_collection(ledger: Ledger, upload: Upload) -> None:
    with pytest.raises(NotFound, match="docs"):
        await accept(ledger, upload())


# --- ingest


async def test_finish_shows_the_chunks_and_counts_them(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload(metadata={"a": 1}))
    chunks = pieces(document, 3)
    assert not await ledger.get_chunks(collection.id, [chunk.id for chunk in chunks])
    assert await ledger.finish_version(document.version_id, chunks, pages=7)
    found = await ledger.get_chunks(collection.id, [chunk.id for chunk in chunks] + ["chk_unknown"])
    assert {key: value.chunk for key, value in found.items()} == {chunk.id: chunk for chunk in chunks}
    assert {(f.document_name, str(f.metadata)) for f in found.values()} == {("a.txt", "{'a': 1}")}
    assert await ledger.list_chunks("acme", document.id) == chunks
    assert await ledger.list_chunks("acme", document.id, after=0, limit=1) == chunks[1:2]
    done = await ledger.get_document("acme", document.id)
    assert (done.status, done.searchable_version, done.pages, done.chunks) == (DONE, 1, 7, 3)
    now = await ledger.get_collection("acme", "docs")
    assert (now.documents, now.chunks) == (1, 3)
    assert now.version > collection.version


async def test_finishing_twice_changes_nothing(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    assert await ledger.finish_version(document.version_id, pieces(document), pages=1)
    before = await ledger.get_collection("acme", "docs")
    assert await ledger.finish_version(document.version_id, pieces(document, 5), pages=2)
    assert await ledger.get_collection("acme", "docs") == before
    assert not await ledger.garbage()


async def test_a_document_without_chunks_is_done_too(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    [document] = await accept(ledger, upload())
    assert await ledger.finish_version(document.version_id, [], pages=0)
    assert (await ledger.get_collection("acme", "docs")).documents == 1


async def test_the_old_version_is_searchable_until_the_new_one_is_finished(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [old] = await accept(ledger, upload(content="1"))
    await ledger.finish_version(old.version_id, pieces(old, 3), pages=1)
    [new] = await accept(ledger, upload(content="2"))
    assert set(await visible(ledger, collection)) == {chunk.id for chunk in pieces(old, 3)}
    between = await ledger.get_document("acme", new.id)
    assert (between.status, between.version, between.searchable_version) == (PENDING, 2, 1)
    assert await ledger.finish_version(old.version_id, pieces(old, 3), pages=1), "it is searchable: done is done"
    assert not await ledger.garbage()
    await ledger.finish_version(new.version_id, pieces(new, 2), pages=1)
    assert set(await visible(ledger, collection)) == {chunk.id for chunk in pieces(new, 2)}
    counted = await ledger.get_collection("acme", "docs")
    assert (counted.documents, counted.chunks) == (1, 2)
    assert await purge(ledger) == {old.version_id}
    assert not await ledger.finish_version(old.version_id, pieces(old, 3), pages=1)


async def test_the_old_version_stays_when_the_new_one_fails(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [old] = await accept(ledger, upload(content="1"))
    await ledger.finish_version(old.version_id, pieces(old), pages=1)
    [new] = await accept(ledger, upload(content="2"))
    await ledger.fail_version(new.version_id, Failure(code="parse_failed", message="no"))
    document = await ledger.get_document("acme", old.id)
    assert (document.status, document.searchable_version, document.version) == (FAILED, 1, 2)
    assert await purge(ledger) == {new.version_id}
    assert set(await visible(ledger, collection)) == {chunk.id for chunk in pieces(old)}


async def test_chunks_of_another_version_are_refused(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    one, two = await accept(ledger, upload("a"), upload("b"))
    with pytest.raises(InvalidInput, match=one.version_id):
        await ledger.finish_version(two.version_id, pieces(one), pages=1)
    assert (await ledger.get_document("acme", two.id)).status is PENDING


@pytest.mark.parametrize("text", ["a\0", "\ud83d"])
async def test_chunks_that_cannot_be_stored_are_refused(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces, text: str
) -> None:
    [document] = await accept(ledger, upload())
    with pytest.raises(InvalidInput, match="text"):
        await ledger.finish_version(document.version_id, pieces(document, text=text), pages=1)


async def test_final_is_final(ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces) -> None:
    done, failed, cancelled = await accept(ledger, upload("a"), upload("b"), upload("c"))
    await ledger.finish_version(done.version_id, pieces(done), pages=1)
    await ledger.fail_version(failed.version_id, Failure(code="x", message="first", attempt=2, at=3.5))
    await ledger.cancel_version(cancelled.version_id)
    for document in (done, failed, cancelled):
        await ledger.cancel_version(document.version_id)
        await ledger.fail_version(document.version_id, Failure(code="y", message="second"))
    assert not await ledger.finish_version(failed.version_id, pieces(failed), pages=1)
    assert not await ledger.finish_version(cancelled.version_id, pieces(cancelled), pages=1)
    now = [await ledger.get_document("acme", document.id) for document in (done, failed, cancelled)]
    assert [document.status for document in now] == [DONE, FAILED, CANCELLED]
    assert [document.error for document in now] == [None, Failure(code="x", message="first", attempt=2, at=3.5), None]
    assert not await ledger.reopen_version(done.version_id, "job")


async def test_unknown_versions(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        await ledger.get_version("ver_x")
    assert not await ledger.finish_version("ver_x", [], pages=0)
    assert not await ledger.reopen_version("ver_x", "job")
    await ledger.fail_version("ver_x", Failure(code="x", message="x"))
    await ledger.cancel_version("ver_x")
    await ledger.forget(["ver_x"])


async def test_a_failed_version_is_reopened(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.fail_version(document.version_id, Failure(code="x", message="x"))
    assert await ledger.reopen_version(document.version_id, "job_2")
    reopened = await ledger.get_document("acme", document.id)
    assert (reopened.status, reopened.error, reopened.job_id) == (PENDING, None, "job_2")
    assert not await ledger.garbage()
    assert await ledger.finish_version(document.version_id, pieces(document), pages=1)


async def test_no_reopening_while_the_index_is_being_cleaned(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.cancel_version(document.version_id)
    [garbage] = await ledger.garbage()
    with pytest.raises(Unavailable):
        await ledger.reopen_version(document.version_id, "job_2")
    assert await ledger.garbage() == [garbage], "a purger that died left it"
    await ledger.forget([garbage.version_id])
    assert not await ledger.garbage()
    assert await ledger.reopen_version(document.version_id, "job_2")
    assert await ledger.finish_version(document.version_id, pieces(document), pages=1)


async def test_pending_versions_are_paged(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    documents = await accept(ledger, *(upload(f"{i}") for i in range(5)))
    await ledger.cancel_version(documents[2].version_id)
    expected = sorted(d.version_id for d in documents if d is not documents[2])
    first = await ledger.pending_versions(limit=3)
    rest = await ledger.pending_versions(after=first[-1].version_id, limit=3)
    assert [work.version_id for work in [*first, *rest]] == expected
    assert all(work.live for work in first)


# --- delete


@pytest.mark.case(11)
async def test_delete_wins_over_a_running_ingest(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    assert await ledger.delete_document("acme", document.id) == document
    assert not await ledger.finish_version(document.version_id, pieces(document), pages=1)
    assert not await visible(ledger, collection)
    assert not await ledger.pending_versions()
    with pytest.raises(NotFound):
        await ledger.get_document("acme", document.id)
    with pytest.raises(NotFound):
        await ledger.delete_document("acme", document.id)
    with pytest.raises(NotFound):
        await ledger.list_chunks("acme", document.id)


async def test_a_deleted_document_is_counted_out(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.finish_version(document.version_id, pieces(document), pages=1)
    before = await ledger.get_collection("acme", "docs")
    await ledger.delete_document("acme", document.id)
    after = await ledger.get_collection("acme", "docs")
    assert (after.documents, after.chunks) == (0, 0)
    assert after.version > before.version
    assert not await ledger.finish_version(document.version_id, pieces(document), pages=1)
    assert not (await ledger.list_documents("acme")).documents


async def test_a_deleted_name_is_free(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    [document] = await accept(ledger, upload())
    await ledger.delete_document("acme", document.id)
    [again] = await ledger.accept("acme", "docs", [upload()])
    assert (again.created, again.document.version) == (True, 1)
    assert again.document.id != document.id


async def test_a_late_finish_makes_garbage_again(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.delete_document("acme", document.id)
    assert await purge(ledger) == {document.version_id}
    assert await purge(ledger) == set()
    assert not await ledger.finish_version(document.version_id, pieces(document), pages=1)
    assert await purge(ledger) == {document.version_id}


async def test_what_came_back_is_not_forgotten(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.finish_version(document.version_id, pieces(document), pages=1)
    await ledger.forget([document.version_id])
    assert len(await visible(ledger, collection)) == 2


async def test_rows_of_the_dead_go_in_the_end(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces, advance: Callable[[float], None]
) -> None:
    [old] = await accept(ledger, upload(content="1"))
    await ledger.finish_version(old.version_id, pieces(old), pages=1)
    [new] = await accept(ledger, upload(content="2"))
    await ledger.finish_version(new.version_id, pieces(new), pages=1)
    [deleted] = await accept(ledger, upload("b"))
    await ledger.delete_document("acme", deleted.id)
    await purge(ledger)
    assert not (await ledger.get_version(old.version_id)).live
    advance(3601)
    await ledger.forget([])
    for version_id in (old.version_id, deleted.version_id):
        with pytest.raises(NotFound):
            await ledger.get_version(version_id)
    assert (await ledger.get_document("acme", new.id)).version == 2
    await ledger.delete_collection("acme", "docs")
    await purge(ledger)
    advance(3601)
    await ledger.forget([])
    with pytest.raises(NotFound):
        await ledger.get_version(new.version_id)


async def test_the_row_of_a_failed_version_goes_once_it_is_replaced(
    ledger: Ledger, collection: Collection, upload: Upload, advance: Callable[[float], None]
) -> None:
    [failed] = await accept(ledger, upload(content="1"))
    await ledger.fail_version(failed.version_id, Failure(code="x", message="x"))
    await purge(ledger)
    advance(3601)
    await ledger.forget([])
    assert (await ledger.get_version(failed.version_id)).live, "it may be reopened"
    await accept(ledger, upload(content="2"))
    await purge(ledger)
    advance(3601)
    await ledger.forget([])
    with pytest.raises(NotFound):
        await ledger.get_version(failed.version_id)


async def test_live_blobs(ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces) -> None:
    shown, newest, deleted = upload("a", "1"), upload("a", "2"), upload("b", "3")
    [document] = await accept(ledger, shown)
    await ledger.finish_version(document.version_id, pieces(document), pages=1)
    [replaced] = await accept(ledger, upload("a", "x"))
    await accept(ledger, newest)
    [gone] = await accept(ledger, deleted)
    await ledger.delete_document("acme", gone.id)
    all_of_them = [shown.sha256, newest.sha256, deleted.sha256, replaced.sha256, "f" * 64]
    assert await ledger.live_blobs(all_of_them) == {shown.sha256, newest.sha256}


# --- lists


async def test_documents_are_listed_newest_first_while_more_come(
    ledger: Ledger, collection: Collection, upload: Upload
) -> None:
    documents = await accept(ledger, *(upload(f"{i}") for i in range(10)))
    expected = sorted((d.id for d in documents), reverse=True)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await ledger.list_documents("acme", cursor=cursor, limit=3)
        seen += [document.id for document in page.documents]
        await accept(ledger, upload(f"later {len(seen)}"))
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == expected


async def test_a_full_last_page_has_no_cursor(ledger: Ledger, collection: Collection, upload: Upload) -> None:
    await accept(ledger, *(upload(f"{i}") for i in range(3)))
    assert (await ledger.list_documents("acme", limit=3)).cursor is None


async def test_documents_are_filtered(ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces) -> None:
    await ledger.create_collection("acme", "other", CollectionOptions())
    done, failed, pending = await accept(ledger, upload("a"), upload("b"), upload("c"))
    [elsewhere] = await accept(ledger, upload("a"), collection="other")
    await ledger.finish_version(done.version_id, pieces(done), pages=1)
    await ledger.fail_version(failed.version_id, Failure(code="x", message="x"))

    async def ids(*where: object, **more: str) -> set[str]:
        return {d.id for d in (await ledger.list_documents("acme", *where, **more)).documents}  # type: ignore[arg-type]

    assert await ids() == {done.id, failed.id, pending.id, elsewhere.id}
    assert await ids("docs") == {done.id, failed.id, pending.id}
    assert await ids("docs", frozenset({FAILED, PENDING})) == {failed.id, pending.id}
    assert await ids(None, frozenset({PENDING})) == {pending.id, elsewhere.id}
    assert await ids("docs", name="a") == {done.id}
    assert await ids(name="a") == {done.id, elsewhere.id}
    with pytest.raises(NotFound):
        await ids("unknown")


@pytest.mark.parametrize("cursor", ["", "x", "doc_", "doc_'; --", "doc_\u0660", "ver_00"])
async def test_a_cursor_that_is_not_ours(ledger: Ledger, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        await ledger.list_documents("acme", cursor=cursor)


@pytest.mark.parametrize("strange", ["\0", "\ud800", "' OR 1=1 --", "x" * 100_000])
async def test_strange_ids_are_not_found_or_refused(ledger: Ledger, collection: Collection, strange: str) -> None:
    with pytest.raises((NotFound, InvalidInput)):
        await ledger.get_document("acme", strange)
    with pytest.raises((NotFound, InvalidInput)):
        await ledger.get_version(strange)
    assert await ledger.find_api_key(strange) is None


async def test_chunks_are_scanned_in_pages(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    documents = await accept(ledger, *(upload(f"{i}") for i in range(4)))
    for document in documents:
        await ledger.finish_version(document.version_id, pieces(document, 3), pages=1)
    await ledger.delete_document("acme", documents[0].id)
    seen: list[str] = []
    while page := await ledger.scan_chunks(collection.id, after=seen[-1] if seen else "", limit=4):
        seen += [found.chunk.id for found in page]
    assert seen == sorted(chunk.id for document in documents[1:] for chunk in pieces(document, 3))


async def test_more_chunks_than_a_query_takes(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    chunks = pieces(document, 1500)
    await ledger.finish_version(document.version_id, chunks, pages=1)
    assert len(await ledger.get_chunks(collection.id, [chunk.id for chunk in chunks])) == 1500


# --- tenants


@pytest.mark.case(34)
async def test_a_tenant_sees_nothing_of_another(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.finish_version(document.version_id, pieces(document), pages=1)
    await ledger.create_collection("mallory", "mine", CollectionOptions())
    for attempt in (
        ledger.get_collection("mallory", "docs"),
        ledger.delete_collection("mallory", "docs"),
        ledger.accept("mallory", "docs", [upload("b")]),
        ledger.get_document("mallory", document.id),
        ledger.delete_document("mallory", document.id),
        ledger.list_chunks("mallory", document.id),
        ledger.list_documents("mallory", "docs"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert not (await ledger.list_documents("mallory")).documents
    mine = await ledger.get_collection("mallory", "mine")
    assert not await ledger.get_chunks(mine.id, [chunk.id for chunk in pieces(document)])
    assert [c.name for c in await ledger.list_collections("mallory")] == ["mine"]


# --- API keys


@pytest.mark.case(33)
async def test_a_key_is_found_by_its_secret_until_revoked(ledger: Ledger) -> None:
    key, secret = await ledger.create_api_key("acme", "ci", ["read"])
    assert secret.startswith("pk_")
    assert len(secret) >= 3 + 43
    assert await ledger.find_api_key(secret) == key
    assert await ledger.find_api_key(secret + "x") is None
    assert await ledger.find_api_key("") is None
    assert await ledger.list_api_keys("acme") == [key]
    assert await ledger.list_api_keys("other") == []
    with pytest.raises(NotFound):
        await ledger.revoke_api_key(key.id, tenant="other")
    with pytest.raises(NotFound):
        await ledger.revoke_api_key("key_unknown")
    await ledger.revoke_api_key(key.id, tenant="acme")
    await ledger.revoke_api_key(key.id)
    assert await ledger.find_api_key(secret) is None
    assert [listed.revoked for listed in await ledger.list_api_keys(None)] == [True]


# --- concurrency


async def test_many_writers_at_once_are_each_served(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    """Good and bad calls together: each gets its own result, whatever shares its transaction."""

    async def one(i: int) -> list[Accepted] | Exception:
        try:
            return list(await ledger.accept("acme", "docs" if i % 3 else "unknown", [upload(f"{i}")]))
        except NotFound as exc:
            return exc

    results = await asyncio.gather(*(one(i) for i in range(300)))
    assert sum(isinstance(result, NotFound) for result in results) == 100
    documents = [result[0].document for result in results if isinstance(result, list)]
    finished = await asyncio.gather(*(ledger.finish_version(d.version_id, pieces(d), pages=1) for d in documents))
    assert all(finished)
    counted = await ledger.get_collection("acme", "docs")
    assert (counted.documents, counted.chunks) == (200, 400)
    assert counted.version > collection.version


async def test_of_documents_that_finish_together_one_fails_alone(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    accepted = await ledger.accept("acme", "docs", [upload(f"{i}") for i in range(6)])
    documents = [one.document for one in accepted]
    calls = [(one, pieces(one)) for one in documents]
    calls[2] = (documents[2], pieces(documents[3]))
    calls.append(calls[4])
    await ledger.delete_document("acme", documents[5].id)
    found = await asyncio.gather(
        *(ledger.finish_version(one.version_id, its, pages=1) for one, its in calls), return_exceptions=True
    )
    assert isinstance(found.pop(2), InvalidInput)
    assert found == [True, True, True, True, False, True]
    counted = await ledger.get_collection("acme", "docs")
    assert (counted.documents, counted.chunks) == (4, sum(len(its) for _, its in calls[:5]) - len(calls[2][1]))
    works = await ledger.get_versions([one.version_id for one in documents] + ["ver_unknown"])
    assert works.keys() == {one.version_id for one in documents}
    assert [works[one.version_id].status for one in documents[:3]] == ["done", "done", "pending"]


async def test_a_caller_that_is_gone_leaves_the_rest_alone(
    ledger: Ledger, collection: Collection, upload: Upload
) -> None:
    tasks = [asyncio.create_task(ledger.accept("acme", "docs", [upload(f"{i}")])) for i in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(isinstance(result, list) for result in results[1::2])
    await ledger.ping()


async def test_what_a_parser_noted_is_told_with_the_document(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    [document] = await accept(ledger, upload())
    await ledger.finish_version(document.version_id, pieces(document), pages=1, notes=["Page 3 was skipped."])
    assert (await ledger.get_document("acme", document.id)).notes == ("Page 3 was skipped.",)


async def test_many_documents_are_deleted_in_one_moment(
    ledger: Ledger, collection: Collection, upload: Upload, pieces: Pieces
) -> None:
    first, second, third = await accept(ledger, upload("a"), upload("b"), upload("c"))
    await ledger.finish_version(first.version_id, pieces(first), pages=1)
    deleted = await ledger.delete_documents("acme", [first.id, "doc_0", second.id])
    assert [document.name for document in deleted] == ["a", "b"]
    assert [document.name for document in (await ledger.list_documents("acme")).documents] == ["c"]
    assert (await ledger.get_collection("acme", "docs")).chunks == 0
    assert await ledger.delete_documents("other", [third.id]) == []
