"""Vectors on their way into an index: the right dimensions, finite, float32."""

from collections.abc import Sequence

import numpy as np

from penstock.errors import DataError
from penstock.stores.base import Vector


def stack(vectors: Sequence[Vector], dimensions: int) -> Vector:
    """(n, dimensions) float32. `DataError` when one has other dimensions, or holds NaN or infinity."""
    for vector in vectors:
        check_dimensions(vector, dimensions)
    matrix = np.asarray(vectors, dtype=np.float32).reshape(len(vectors), dimensions)
    if not np.isfinite(matrix).all():
        raise DataError("A vector holds NaN or infinity; the embedding model is broken and nothing was stored")
    return matrix


def check_dimensions(vector: Vector, dimensions: int) -> None:
    """`DataError` when a vector does not fit its collection."""
    if vector.shape != (dimensions,):
        raise DataError(
            f"The vector's shape is {vector.shape} and the collection's is ({dimensions},): the embedding model is "
            "another one than the collection was indexed with; reindex the collection"
        )
