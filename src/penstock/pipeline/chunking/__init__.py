"""Text to passages. The names here are all that most of the house needs; `chunker.Chunker` does the work."""

import functools
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version

from penstock.errors import InvalidInput

CHUNKER_NAMES = ("recursive", "heading", "page", "tokens", "sentence")
"""`recursive`: along sections, paragraphs, lines, sentences, words, whichever fits; never across a page (the default).
`heading`: one section a passage. `page`: one page a passage. `tokens`: windows of equal length. `sentence`: whole
sentences, sharing whole sentences. A unit that is too long is cut as `recursive` does."""

GROUP = "penstock.chunkers"
"""Entry points of this group are `custom.CustomChunker`s, named as collections name them."""


def chunker_names() -> Sequence[str]:
    """Those that come with Penstock, and those that are installed beside it."""
    return [*CHUNKER_NAMES, *sorted(entry_points(group=GROUP).names - set(CHUNKER_NAMES))]


def find_chunker(name: str) -> EntryPoint:
    """`InvalidInput` for a name that nobody has installed."""
    for point in entry_points(group=GROUP, name=name):
        return point
    raise InvalidInput(f"There is no chunker {name!r}. Choose one of {', '.join(chunker_names())}.")


@functools.cache
def chunker_version(name: str) -> str:
    """What decides about passages beside the text: the version of the package that the chunker comes from."""
    if name in CHUNKER_NAMES:
        return f"splitter {version('semantic-text-splitter')}"
    point = find_chunker(name)
    return f"{point.value} {point.dist.name} {point.dist.version}" if point.dist else point.value
