"""Images on their way through the batcher: an engine whose items are pixels, not tokens."""

from collections.abc import Sequence

import numpy as np

from penstock.models.base import Encoder, Item, Pending, TokenIds


class ImageEncoder(Encoder):
    """An engine that takes pixels (rows, side, side, 3). An image counts as `tokens`: what the network sees of it."""

    def __init__(self, engine: Encoder, *, tokens: int) -> None:
        self._engine = engine
        self._tokens = tokens

    @property
    def streams(self) -> int:
        return self._engine.streams

    @property
    def dimensions(self) -> int:
        return self._engine.dimensions

    def tokens_of(self, item: Item) -> int:  # noqa: ARG002
        return self._tokens

    def collate(self, items: Sequence[Item], length: int, pad_id: int) -> tuple[Item, TokenIds]:  # noqa: ARG002
        return np.stack(items), np.ones((len(items), 1), np.int32)

    def start(self, ids: Item, mask: TokenIds) -> Pending:
        return self._engine.start(ids, mask)

    def room_tokens(self) -> int | None:
        return self._engine.room_tokens()

    def relieve(self) -> None:
        self._engine.relieve()

    def close(self) -> None:
        self._engine.close()
