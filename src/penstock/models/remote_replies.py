"""Replies of `/embeddings` and `/rerank`: bytes to arrays, refusing whatever could be a wrong vector. No I/O."""

import base64
import binascii
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.models.base import Vectors
from penstock.models.openai_stream import error_text
from penstock.types import JSON


class BadReply(ValueError):
    """What the provider sent instead of what was asked for, as the end of "… sent …"."""


class _Row(msgspec.Struct):
    embedding: str | list[float | None]
    index: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Row] | None = None
    error: JSON = None


class _Result(msgspec.Struct):
    index: int
    relevance_score: float | None = None


class _Reranked(msgspec.Struct):
    results: list[_Result] | None = None
    error: JSON = None


_embeddings = msgspec.json.Decoder(_Embeddings, strict=False)
_reranked = msgspec.json.Decoder(_Reranked, strict=False)


def read_embeddings(body: bytes, count: int) -> Vectors:
    """One vector of length 1 a text, in the order of `index`: (count, dimensions). Raises `BadReply`."""
    try:
        reply = _embeddings.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadReply(f"something else than embeddings in JSON ({exc})") from exc
    if reply.data is None:
        raise BadReply(_instead(reply.error))
    order = _places([place if row.index is None else row.index for place, row in enumerate(reply.data)], count)
    rows = [_vector(row.embedding) for row in reply.data]
    if len({len(row) for row in rows}) > 1:
        raise BadReply("vectors of different dimensions in one reply")
    vectors = np.empty((count, len(rows[0])), np.float32)
    vectors[order] = np.stack(rows)
    return _unit(vectors)


def read_scores(body: bytes, count: int) -> NDArray[np.float32]:
    """One score in [0, 1] a text, in the order of the texts: (count,). Raises `BadReply`.

    A reply with a number outside of [0, 1] holds raw logits: all of it goes through the logistic function.
    """
    try:
        reply = _reranked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadReply(f"something else than a ranking in JSON ({exc})") from exc
    if reply.results is None:
        raise BadReply(_instead(reply.error))
    order = _places([result.index for result in reply.results], count)
    scores = np.empty(count, np.float64)
    scores[order] = [np.nan if result.relevance_score is None else result.relevance_score for result in reply.results]
    if not np.isfinite(scores).all():
        raise BadReply("a score that is not a number")
    if scores.min() < 0 or scores.max() > 1:
        scores = 0.5 * (1 + np.tanh(0.5 * scores))
    return scores.astype(np.float32)


def _places(indexes: Sequence[int], count: int) -> list[int]:
    if len(indexes) != count:
        raise BadReply(f"{len(indexes)} results for {count} texts")
    if sorted(indexes) != list(range(count)):
        raise BadReply("results whose `index` names a text twice, or one that was not sent")
    return list(indexes)


def _vector(embedding: str | list[float | None]) -> NDArray[np.float32]:
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
            return np.array([np.nan if number is None else number for number in embedding], np.float32)
    except (binascii.Error, ValueError) as exc:
        raise BadReply("a vector that is neither numbers nor base64 of float32") from exc


def _unit(vectors: Vectors) -> Vectors:
    if not np.isfinite(vectors).all():
        raise BadReply("a vector with NaN or an infinite number")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not vectors.shape[1] or (lengths < 1e-12).any():
        raise BadReply("a vector of length 0")
    return np.asarray(vectors / lengths, np.float32)


def _instead(error: JSON) -> str:
    return f'an error: "{error_text(error)}"' if error is not None else "a reply without results"
