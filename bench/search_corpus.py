"""Chunks like real ones, as many as are wanted, for `search.py`.

Real passages are embedded by the default model; as further ones, each takes a real vector some way along the line
between two of its neighbours: x + 0.8 (y - z), of length 1. On halves of `squad-dev` and `load-en` such vectors have
the nearest neighbours, the principal components and the recall by partitions of the other half, or are a little harder.
The text is the first half of x's passage and the second of y's. Questions are those of `squad-dev`.

Without these data, vectors around weak centres with the spectrum of embeddings and words by Zipf's law stand for them.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.models.base import Embedder, Lane, Role
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.stores import IndexRow

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

DATA = Path(__file__).parents[2] / "shared" / "data"
DIMENSIONS = 384
NEIGHBOURS = 16
STEP = 0.8
QUESTIONS = 200
AT_ONCE = 512
SPREAD_ROWS = 65_536
CENTRES = 200
WORDS_A_CHUNK = 90
VOCABULARY = 30_000


@dataclass(frozen=True, slots=True)
class Seed:
    """Passages and questions, with their vectors."""

    texts: Sequence[str]
    vectors: Vectors
    questions: Sequence[str]
    asked: Vectors


@dataclass(frozen=True, slots=True)
class Corpus:
    """Chunk i has `vectors[i]`, the first half of passage `heads[i]` and the second of `tails[i]`."""

    seed: Seed
    vectors: Vectors
    heads: Numbers
    tails: Numbers

    def chunks(self, numbers: range) -> list[IndexRow]:
        """The rows of some of them, ten a document; a tenth are on each shelf."""
        return [
            IndexRow(
                chunk_id=f"chk_{i:09d}",
                document_id=f"doc_{i // 10:08d}",
                version_id=f"ver_{i // 10:08d}",
                text=self._text(i),
                vector=self.vectors[i],
                metadata={"shelf": i // 10 % 10, "year": 1990 + i // 10 % 30},
            )
            for i in numbers
        ]

    def _text(self, number: int) -> str:
        head, tail = self.seed.texts[self.heads[number]], self.seed.texts[self.tails[number]]
        return f"{head[: len(head) // 2]} {tail[len(tail) // 2 :]}"


def make_seed(data: Path, passages: int) -> Seed:
    """Embeds so many passages, half of each collection; makes some up where there is no `data`."""
    if not (data / "load-en" / "corpus.jsonl").is_file():
        return _made_up(passages)
    texts = _read(data / "squad-dev" / "corpus.jsonl", passages // 2)
    texts += _read(data / "load-en" / "corpus.jsonl", passages - len(texts))
    questions = _read(data / "squad-dev" / "queries.jsonl", QUESTIONS)
    vectors, asked = asyncio.run(_embed(texts, questions))
    return Seed(texts, vectors, questions, asked)


def make_corpus(seed: Seed, rows: int) -> Corpus:
    """The passages themselves first, then made ones."""
    rng = np.random.default_rng(7)
    real, near = len(seed.texts), _neighbours(seed.vectors)
    heads = np.concatenate([np.arange(min(real, rows)), rng.integers(real, size=max(rows - real, 0))])
    picked = rng.integers(NEIGHBOURS, size=rows)
    tails = near[heads, picked]
    others = near[heads, (picked + rng.integers(1, NEIGHBOURS, size=rows)) % NEIGHBOURS]
    tails[:real] = heads[:real]
    vectors = np.empty((rows, seed.vectors.shape[1]), np.float32)
    for start in range(0, rows, SPREAD_ROWS):
        part = slice(start, start + SPREAD_ROWS)
        step = STEP * (seed.vectors[tails[part]] - seed.vectors[others[part]])
        vectors[part] = _unit(seed.vectors[heads[part]] + step)
    vectors[:real] = seed.vectors[:rows]
    return Corpus(seed, vectors, heads, tails)


def _read(file: Path, limit: int) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(limit), strict=False)]


async def _embed(texts: Sequence[str], questions: Sequence[str]) -> tuple[Vectors, Vectors]:
    async with ModelPool(ModelsOptions()) as pool:
        embedder = await pool.embedder(DEFAULT_MODEL)
        return await _vectors(embedder, texts, Role.PASSAGE), await _vectors(embedder, questions, Role.QUERY)


async def _vectors(embedder: Embedder, texts: Sequence[str], role: Role) -> Vectors:
    starts = range(0, len(texts), AT_ONCE)
    return np.concatenate(
        [await embedder.embed(texts[start : start + AT_ONCE], role=role, lane=Lane.BULK) for start in starts]
    )


def _neighbours(vectors: Vectors) -> Numbers:
    near = []
    for start in range(0, len(vectors), AT_ONCE):
        cosines = vectors[start : start + AT_ONCE] @ vectors.T
        np.put_along_axis(cosines, np.arange(start, start + len(cosines))[:, None], -1, axis=1)
        near.append(np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS])
    return np.concatenate(near)


def _made_up(passages: int) -> Seed:
    rng = np.random.default_rng(3)
    scales = (1 / np.sqrt(np.arange(1, DIMENSIONS + 1))).astype(np.float32)
    centres = rng.normal(size=(CENTRES, DIMENSIONS))[rng.integers(CENTRES, size=passages)]
    vectors = _unit(((centres + 1.5 * rng.normal(size=centres.shape)) * scales).astype(np.float32))
    weights = 1 / np.arange(10, VOCABULARY + 10)
    words = rng.choice(VOCABULARY, size=(passages, WORDS_A_CHUNK), p=weights / weights.sum())
    texts = [" ".join(f"word{number}" for number in row) for row in words.tolist()]
    sources = rng.integers(passages, size=QUESTIONS)
    asked = _unit(vectors[sources] + (rng.normal(size=(QUESTIONS, DIMENSIONS)) * scales / 6).astype(np.float32))
    questions = [" ".join(rng.choice(texts[source].split(), size=8)) for source in sources]
    return Seed(texts, vectors, questions, asked)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
