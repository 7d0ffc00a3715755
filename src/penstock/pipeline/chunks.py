"""What is read in a document to its version's chunks: passages, then captions, then pictures."""

from collections.abc import Iterator, Sequence

from penstock.ids import chunk_id
from penstock.ledger.base import VersionWork
from penstock.models.base import Embedder
from penstock.pipeline.media import IMAGES
from penstock.pipeline.parsing.records import Chunked, PictureSpot
from penstock.types import Chunk, ChunkKind

LABEL = "Picture {} of {}"
"""What stands for a picture that nobody described."""


def make_chunks(work: VersionWork, chunked: Chunked, embedder: Embedder) -> Sequence[Chunk]:
    """Pictures are the last ones, and only there where the collection has an image model.

    A picture and its caption have the same text, so that a search shows one of them. Their positions do not depend on
    which pictures have a caption: another attempt may find more of them.
    """
    places = list(enumerate(chunked.pictures))
    first = len(chunked.pieces)
    captions = [_of_picture(work, "caption", spot, first + 2 * n, embedder) for n, spot in places if spot.caption]
    pictures = [_of_picture(work, "picture", spot, first + 2 * n + 1, embedder) for n, spot in places]
    return [*_passages(work, chunked), *captions, *(pictures if work.collection.options.image_model else ())]


def _passages(work: VersionWork, chunked: Chunked) -> Iterator[Chunk]:
    for position, piece in enumerate(chunked.pieces):
        yield Chunk(
            id=chunk_id(work.version_id, position),
            document_id=work.document_id,
            version_id=work.version_id,
            collection_id=work.collection.id,
            position=position,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            tokens=piece.tokens,
            page=piece.page,
            headings=piece.headings,
        )


def _of_picture(work: VersionWork, kind: ChunkKind, spot: PictureSpot, position: int, embedder: Embedder) -> Chunk:
    text = spot.caption or _label(work, spot)
    return Chunk(
        id=chunk_id(work.version_id, position),
        document_id=work.document_id,
        version_id=work.version_id,
        collection_id=work.collection.id,
        position=position,
        text=text,
        start=0,
        end=0,
        tokens=len(embedder.tokenizer.encode(text, add_special_tokens=False).ids),
        page=spot.page,
        kind=kind,
        picture=spot.number,
    )


def _label(work: VersionWork, spot: PictureSpot) -> str:
    alone = work.media_type in IMAGES and spot.page is None
    return work.name if alone else LABEL.format(spot.number, work.name)
