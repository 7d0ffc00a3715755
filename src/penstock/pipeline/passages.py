"""What of a chunk is embedded and indexed: its text, under the headings that it stands below."""

from penstock.types import Chunk


def passage_text(chunk: Chunk) -> str:
    """The heading path, one line, then the text; a chunk without headings is its text alone.

    A passage often does not repeat what its heading says ("Article 12: Manhole covers"), while questions do.
    """
    return "\n".join([" > ".join(chunk.headings), chunk.text]) if chunk.headings else chunk.text
