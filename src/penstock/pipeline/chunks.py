"""What is read in a document to its version's chunks: passages, then captions, then pictures."""

from collections.abc import Iterator, Sequence
from itertools import count

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

    A picture and its caption have the same text, so that a search shows one of them.
    """
    captions = [spot for spot in chunked.pictures if spot.caption]
    pictures = chunked.pictures if work.collection.options.image_model else ()
    positions = count(len(chunked.pieces))
    return [
        *_passages(work, chunked),
        *_of_pictures(work, "caption", captions, positions, embedder),
        *_of_pictures(work, "picture", pictures, positions, embedder),
    ]


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


def _of_pictures(
    work: VersionWork, kind: ChunkKind, spots: Sequence[PictureSpot], positions: Iterator[int], embedder: Embedder
) -> Iterator[Chunk]:
    for spot, position in zip(spots, positions, strict=False):
        text = spot.caption or _label(work, spot)
        yield Chunk(
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
