"""Pictures of documents between the moment they are found and the moment they are embedded."""

from collections import OrderedDict
from collections.abc import Sequence

from penstock.pipeline.parsing.records import FoundPicture

MAX_BYTES = 64 * 1024 * 1024


class PictureShelf:
    """Keeps the newest within a bound; what is not there any more is looked for in the document again."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, Sequence[FoundPicture]] = OrderedDict()
        self._bytes = 0

    def put(self, sha256: str, found: Sequence[FoundPicture]) -> None:
        """Of the document with these bytes."""
        self.take(sha256)
        self._held[sha256] = found
        self._bytes += _size(found)
        while self._bytes > self._max_bytes:
            self.take(next(iter(self._held)))

    def take(self, sha256: str) -> Sequence[FoundPicture] | None:
        found = self._held.pop(sha256, None)
        self._bytes -= _size(found or ())
        return found


def _size(found: Sequence[FoundPicture]) -> int:
    return sum(len(one.picture.data) for one in found)
