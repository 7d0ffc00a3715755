"""What is ingested again is neither parsed nor embedded again, and a cache can make nothing wrong."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.cache import open_cache
from penstock.pipeline.content_cache import ContentCache, ContentKeys
from penstock.pipeline.parsing.records import Chunked, ChunkingRequest, Piece
from penstock.pipeline.passage_vectors import PassageVectors
from penstock.testing.house import CountingEmbedder, House, open_house, vector_of

PARAGRAPH = "The sluice of chamber {number} opens when the water stands {number} hands high in the upper basin. "


def book(*numbers: int) -> bytes:
    """One passage for each number."""
    return "\n\n\n".join(PARAGRAPH.format(number=number) * 3 for number in numbers).encode()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


async def test_the_same_bytes_elsewhere_cost_neither_parse_nor_vector(house: House) -> None:
    first = await house.ingest("a.txt", book(1, 2, 3))
    await house.cache.__aexit__(None, None, None)  # what was kept is written
    second = await house.ingest("b.txt", book(1, 2, 3))
    assert (first.parsed, first.embedded) == (True, first.chunks)
    assert (second.parsed, second.embedded, second.chunks) == (False, 0, first.chunks)
    assert house.parsers.stats.documents == 1


async def test_a_new_version_embeds_what_changed_alone(house: House) -> None:
    first = await house.ingest("a.txt", book(1, 2, 3, 4))
    await house.cache.__aexit__(None, None, None)
    second = await house.ingest("a.txt", book(1, 2, 30, 4))
    assert first.chunks == second.chunks > 3
    assert second.parsed
    assert 0 < second.embedded < second.chunks


async def test_equal_passages_of_one_document_are_embedded_once(house: House) -> None:
    ingested = await house.ingest("a.txt", book(7, 7, 7, 7))
    assert len(house.embedder.texts) == len(set(house.embedder.texts)) == ingested.embedded < ingested.chunks


async def test_other_bytes_options_parsers_or_tokenizers_have_other_keys(tmp_path: Path) -> None:
    def key(sha256: str = "a", media_type: str = "text/plain", parser: str = "1", **changed: object) -> str:
        base = ChunkingRequest(chunker="recursive", tokens=64, overlap=0, tokenizer_file="anywhere")
        embedder = CountingEmbedder(tmp_path)
        return ContentKeys(embedder).passages(sha256, media_type, parser, replace(base, **changed))  # type: ignore[arg-type]

    keys = {key(), key("b"), key(media_type="text/html"), key(parser="2")}
    keys |= {key(chunker="page"), key(tokens=65), key(overlap=1)}
    assert len(keys) == 7
    assert key(tokenizer_file="elsewhere") in keys, "it counts by its content"
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert key() not in keys


async def test_vectors_of_another_model_are_not_taken(tmp_path: Path) -> None:
    one, two = CountingEmbedder(tmp_path, "one"), CountingEmbedder(tmp_path, "two")
    before = ContentKeys(one).vectors(["text"])
    assert ContentKeys(two).vectors(["text"]) != before
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert ContentKeys(one).vectors(["text"]) != before


async def test_vectors_come_back_in_order(tmp_path: Path) -> None:
    embedder = CountingEmbedder(tmp_path)
    async with open_cache("memory://") as store, ContentCache(store, 60) as cache:
        vectors = PassageVectors(embedder, cache)
        await vectors.of(["b", "d"])
        await cache.__aexit__(None, None, None)
        found = await vectors.of(["a", "b", "c", "b", "d"])
        assert found.computed == 2
        for row, text in zip(found.vectors, ["a", "b", "c", "b", "d"], strict=True):
            assert (row == vector_of(text)).all()
        assert (await vectors.of([])).vectors.shape == (0, 8)


async def test_what_a_damaged_cache_holds_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with open_house(tmp_path / "house", cache_url=f"sqlite:///{path}") as house:
        first = await house.ingest("a.txt", book(1, 2))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE entries SET value = x'93c0', checksum = 3262217535 WHERE namespace = 'passages'")
        connection.execute("UPDATE entries SET value = substr(value, 1, 8) WHERE namespace = 'vectors'")
        connection.commit()
    async with open_house(tmp_path / "house", cache_url=f"sqlite:///{path}") as house:
        again = await house.ingest("b.txt", book(1, 2))
    assert (again.parsed, again.embedded, again.chunks) == (True, first.chunks, first.chunks)


async def test_a_cache_file_serves_the_next_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cache.sqlite3'}"
    async with open_house(tmp_path / "house", cache_url=url) as house:
        await house.ingest("a.txt", book(1, 2))
    async with open_house(tmp_path / "house", cache_url=url) as house:
        again = await house.ingest("b.txt", book(1, 2))
    assert (again.parsed, again.embedded) == (False, 0)


async def test_no_cache_at_all_works_too(tmp_path: Path) -> None:
    async with open_house(tmp_path, cache_url="off") as house:
        await house.ingest("a.txt", book(1))
        again = await house.ingest("b.txt", book(1))
    assert (again.parsed, again.embedded) == (True, again.chunks)


async def test_what_was_not_read_whole_is_not_kept() -> None:
    async with open_cache("memory://") as store, ContentCache(store, 60) as cache:
        piece = Piece(text="word", start=0, end=4, tokens=1)
        cache.keep_passages("empty", Chunked(pieces=(), pages=1, media_type="application/pdf"))
        scanned = Chunked(pieces=(piece,), pages=2, media_type="application/pdf", unread=(2,))
        cache.keep_passages("scanned", scanned)
        cache.keep_passages("full", Chunked(pieces=(piece,), pages=1, media_type="application/pdf"))
        await cache.__aexit__(None, None, None)
        assert await cache.passages("empty") is None
        assert await cache.passages("scanned") is None
        assert (await cache.passages("full")) is not None


async def test_those_who_ask_at_the_same_time_each_get_their_own() -> None:
    async with open_cache("memory://") as store, ContentCache(store, 60) as cache:
        keys = [f"key {number}" for number in range(40)]
        vectors = np.arange(80, dtype=np.float32).reshape(40, 2)
        cache.keep_vectors(keys, vectors)
        await cache.__aexit__(None, None, None)
        asked = [keys[number : number + 3] for number in range(40)]
        found = await asyncio.gather(*(cache.vectors([*some, "unknown"], 2) for some in asked))
    for some, its in zip(asked, found, strict=True):
        assert list(its) == some
        assert all((its[key] == vectors[keys.index(key)]).all() for key in some)
