"""The contracts of the models room: what a caller may ask of a model, and what an engine must do for the batcher."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Vectors: TypeAlias = NDArray[np.float32]
"""float32, shape (n, dimensions), every row of length 1."""

TokenIds: TypeAlias = NDArray[np.int32]

Item: TypeAlias = NDArray[Any]
"""What an engine turns into one vector: a text's token ids, or an image's pixels."""


class Role(StrEnum):
    """What a text is for. Some models (e5, bge) want another prefix for a query than for a passage."""

    PASSAGE = "passage"
    QUERY = "query"


class Lane(StrEnum):
    """Interactive calls go ahead of bulk ones and wait for at most the slice of bulk work that is running."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A loaded model. `memory_bytes` is what its weights take, `load_s` from the first file read to warm.

    `told` tells what else its vectors depend on: the same name may mean another model after a change of the settings.
    """

    name: str
    kind: str
    dimensions: int
    max_tokens: int
    device: str
    precision: str
    memory_bytes: int
    load_s: float
    told: str = ""


class Embedder(ABC):
    """Texts to vectors. The same text gives the same vector whatever it is batched with (rounding aside)."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo: ...

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without truncation or padding: it counts every token of a text."""

    @property
    @abstractmethod
    def tokenizer_file(self) -> Path:
        """The `tokenizer.json` of `tokenizer`, for processes that count tokens without the model."""

    @abstractmethod
    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        """One L2-normalised vector a text, in order: shape (len(texts), dimensions), float32.

        A text longer than `info.max_tokens` counts with its first `max_tokens` tokens. No texts give shape (0, dim).
        A cancelled call leaves the queue at once. Raises Unavailable when the model is closed or its engine fails.
        """


class ImageEmbedder(Embedder):
    """Texts and images to vectors of one space: what an image shows is near to the words for it."""

    @abstractmethod
    async def embed_images(self, images: Sequence[bytes], *, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        """One L2-normalised vector an image file, in order: shape (len(images), dimensions), float32.

        Of an animation the first picture counts. Raises TooLarge, UnsupportedMedia or InvalidInput for an image that
        is refused, Unavailable when the model is closed or its engine fails.
        """


class Reranker(ABC):
    """How well each text answers a query."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo: ...

    @property
    @abstractmethod
    def candidates(self) -> int:
        """How many texts a caller should give it for a question, where there are as many."""

    @abstractmethod
    async def rerank(self, query: str, texts: Sequence[str], *, lane: Lane = Lane.INTERACTIVE) -> NDArray[np.float32]:
        """One score in [0, 1] a text, in order: shape (len(texts),). Higher is better; comparable within a query.

        Of a pair that is longer than `info.max_tokens` the text is cut; the query only where it alone would fill half
        of it. A cancelled call leaves the queue at once. Raises Unavailable or ProviderError.
        """


Pending: TypeAlias = Callable[[], NDArray[np.float32]]
"""Waits for a started batch: shape (rows, dimensions). Raises Unavailable when it failed."""


class Encoder(ABC):
    """An engine: one network on one device, driven by the batcher's threads. Blocking; knows no asyncio.

    At most `streams` batches are started and not yet waited for, each by a thread of its own.
    """

    @property
    def streams(self) -> int:
        """How many batches run side by side. More than one only where OutOfMemory does not happen."""
        return 1

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Columns of a result."""

    @abstractmethod
    def start(self, ids: Item, mask: TokenIds) -> Pending:
        """Begin one padded batch, and do not wait for it. Raises Unavailable.

        Both arrays are as `collate` made them; for texts of the shape (rows, length), and mask 0 marks padding. Raises
        OutOfMemory, as `Pending` may, when a smaller batch may fit; by then it has let go of the batch's tensors.
        """

    def tokens_of(self, item: Item) -> int:
        """What an item counts in budgets and metrics, and what batches are sorted by."""
        return len(item)

    def collate(self, items: Sequence[Item], length: int, pad_id: int) -> tuple[Item, TokenIds]:
        """Items of at most `length` tokens as one batch for `start`: the data, and a mask (rows, length)."""
        data, mask = np.full((len(items), length), pad_id, np.int32), np.zeros((len(items), length), np.int32)
        for place, item in enumerate(items):
            data[place, : len(item)] = item
            mask[place, : len(item)] = 1
        return data, mask

    def room_tokens(self) -> int | None:
        """Tokens of one batch that the device's free memory holds at the moment; None: that is no limit here."""
        return None

    def relieve(self) -> None:
        """After OutOfMemory: give back to the device what is kept for reuse."""
        return

    @abstractmethod
    def close(self) -> None:
        """Give back the memory. Harmless when called twice."""
