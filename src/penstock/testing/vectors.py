"""Embeddings and rerank scores of the fake provider: hashed words, so that like texts are alike."""

import base64
import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.testing.behaviour import Behaviour, Fault
from penstock.types import JSON

_TERM = re.compile(r"[\u3400-\u9fff]|\w+")


def embeddings(request: JSON, behaviour: Behaviour) -> JSON:
    """The body of `/v1/embeddings`; `input` is one text or a list, `encoding_format` float or base64."""
    texts = [request["input"]] if isinstance(request["input"], str) else list(request["input"])
    dimensions = int(request.get("dimensions") or behaviour.dimensions)
    vectors = [embed(text, dimensions) for text in texts]
    vectors = _spoil(vectors, behaviour.fault)
    as_base64 = request.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, as_base64)}
        for index, vector in enumerate(vectors)
    ]
    if behaviour.fault is Fault.REORDERED:
        rows.reverse()
    if behaviour.fault is Fault.WRONG_INDEX:
        rows = [{**row, "index": 0} for row in rows]
    used = sum(len(_TERM.findall(text)) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": rows, "model": request.get("model", "fake"), "usage": usage}


def rerank(request: JSON, behaviour: Behaviour) -> JSON:
    """The body of `/v1/rerank` in the shape of Jina and Cohere: cosine of the word vectors, best first."""
    query = embed(request["query"], behaviour.dimensions)
    documents = [_text(document) for document in request["documents"]]
    scores = [float(query @ embed(text, behaviour.dimensions)) for text in documents]
    if behaviour.fault is Fault.NAN:
        scores[0] = math.nan
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: request.get("top_n") or len(scores)]
    if behaviour.fault is Fault.WRONG_COUNT:
        order = order[:-1]
    offset = len(documents) if behaviour.fault is Fault.WRONG_INDEX else 0
    results = [{"index": i + offset, "relevance_score": scores[i]} for i in order]
    return {"model": request.get("model", "fake"), "results": results}


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """Unit length, or all zeros for a text without words."""
    vector = np.zeros(dimensions, np.float32)
    for term in _TERM.findall(text.lower()):
        digest = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "big")
        vector[digest % dimensions] += 1.0 if digest >> 63 else -1.0
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _spoil(vectors: Sequence[NDArray[np.float32]], fault: Fault) -> list[NDArray[np.float32]]:
    match fault:
        case Fault.WRONG_COUNT:
            return list(vectors[:-1])
        case Fault.WRONG_DIMENSION:
            return [*vectors[:-1], vectors[-1][:-1]]
        case Fault.NAN | Fault.INFINITE:
            bad = vectors[-1].copy()
            bad[0] = math.nan if fault is Fault.NAN else math.inf
            return [*vectors[:-1], bad]
        case _:
            return list(vectors)


def _encoded(vector: NDArray[np.float32], as_base64: bool) -> JSON:
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()


def _text(document: JSON) -> str:
    return document if isinstance(document, str) else str(document.get("text", ""))
