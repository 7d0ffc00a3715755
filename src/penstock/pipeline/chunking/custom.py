"""The contract of chunkers that others write."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from penstock.pipeline.parsing.records import ParsedDocument


class CustomChunker(ABC):
    """Where to cut. Made once a parser process and size; blocking is fine."""

    def __init__(self, tokens: int, overlap: int, count: Callable[[str], int]) -> None:
        """`tokens` is the most that a passage may have, `overlap` what neighbours should share; `count` counts them as
        the embedding model does."""
        self.tokens = tokens
        self.overlap = overlap
        self.count = count

    @abstractmethod
    def cut(self, document: ParsedDocument) -> Iterable[tuple[int, int]]:
        """Ranges of `document.text`, start and end in characters, in reading order; they may overlap.

        Penstock strips blank edges, drops blank ranges, and cuts those that are longer than `tokens`.
        """
