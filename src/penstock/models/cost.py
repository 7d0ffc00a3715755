"""How long a batch will take: fixed + per token + per squared length, learned from the batches that ran."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

KEPT = 128
EVERY = 16
TRUST_IN_OLD = 0.5

FIRST_GUESS_MS = (2.0, 0.07, 3e-5)
"""Fixed, per token, per rows · length². A small encoder on two cores; the first batches put it right."""


class CostModel:
    """Least squares on the relative error over the last batches, held near the previous estimate.

    The hold matters when all batches look alike: what they do not tell stays as it was. One thread at a time feeds it.
    """

    def __init__(self) -> None:
        self._weights: NDArray[np.float64] = np.array(FIRST_GUESS_MS)
        self._fast = FIRST_GUESS_MS  # the same as plain numbers: asked for every row that a batch might take
        self._floor = self._weights * 1e-3
        self._seen: deque[tuple[tuple[float, float, float], float]] = deque(maxlen=KEPT)
        self._news = 0

    def predict_ms(self, rows: int, length: int) -> float:
        fixed, token, square = self._fast
        tokens = rows * length
        return fixed + tokens * (token + square * length)

    def observe(self, rows: int, length: int, took_ms: float) -> None:
        self._seen.append((features(rows, length), max(took_ms, 1e-3)))
        self._news += 1
        if self._news >= EVERY:
            self.fit()

    def fit(self) -> None:
        """Take in what was seen. Ridge regression in units of the old estimate: near 1 means as before."""
        if not self._seen:
            return
        took = np.array([ms for _, ms in self._seen])
        shares = np.array([x for x, _ in self._seen]) * self._weights / took[:, None]
        pull = TRUST_IN_OLD
        left = shares.T @ shares + pull * np.eye(3)
        change = np.linalg.solve(left, shares.T @ np.ones(len(took)) + pull)
        self._weights = np.maximum(self._weights * np.clip(change, 0.1, 10), self._floor)
        fixed, token, square = self._weights.tolist()
        self._fast = fixed, token, square
        self._news = 0


def features(rows: int, length: int) -> tuple[float, float, float]:
    return 1.0, float(rows * length), float(rows * length * length)
