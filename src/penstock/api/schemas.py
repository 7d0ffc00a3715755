"""What callers send, field by field. Strict: no unknown field, no string where a number is meant."""

from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from penstock.errors import InvalidInput
from penstock.filters import parse_filter
from penstock.pipeline.chunking import chunker_names
from penstock.pipeline.intake import DEFAULT_COLLECTION
from penstock.types import CollectionOptions, DocumentStatus, JobState, Priority

MAX_DOCUMENTS = 5_000
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 8


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if not _shallow(value, MAX_METADATA_DEPTH):
        raise ValueError(f"metadata is nested deeper than {MAX_METADATA_DEPTH} levels; flatten it")
    if len(msgspec.json.encode(value)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata is larger than {MAX_METADATA_BYTES:,} bytes; keep what you filter by")
    return value


def _shallow(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_shallow(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_shallow(item, levels - 1) for item in value)
    return True


def _filter(value: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        parse_filter(value)
    except InvalidInput as exc:
        raise ValueError(exc.message) from exc
    return value


def _sane_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    if not text.strip():
        raise ValueError("must hold more than blanks")
    return text


Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_metadata),
    Field(description="JSON that belongs to the document: shown with its hits, and what filters ask for."),
]
Filter = Annotated[
    dict[str, Any] | None,
    AfterValidator(_filter),
    Field(None, description="Over the documents' metadata.", examples=[{"city": "Graz", "year": {"gte": 2020}}]),
]
Text = Annotated[str, AfterValidator(_sane_text)]
CollectionName = Annotated[str, Field(DEFAULT_COLLECTION, min_length=1, max_length=64)]
Timeout = Annotated[
    float | None,
    Field(None, ge=0.1, le=3600, description="Seconds after which the answer is of no use: the job fails then."),
]
PriorityField = Annotated[Priority, Field(strict=False)]
StateField = Annotated[JobState, Field(strict=False)]


CHUNKER_HELP: Final = "recursive, heading, page, tokens, sentence, or one that is installed beside Penstock."


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewCollection(Strict):
    """A collection and what its chunks and vectors are made with (not changed later but by a reindex)."""

    name: Annotated[str, Field(min_length=1, max_length=64, examples=["inspections"])]
    embedding_model: Annotated[str, Field("default", min_length=1, max_length=64)]
    chunker: Annotated[str, Field("recursive", min_length=1, max_length=64, description=CHUNKER_HELP)]
    chunk_tokens: Annotated[int, Field(240, ge=16, le=4096)]
    chunk_overlap: Annotated[int, Field(32, ge=0, le=2048)]
    reranker: Annotated[str | None, Field(None, min_length=1, max_length=64)]
    image_model: Annotated[
        str | None,
        Field(
            None, min_length=1, max_length=64, description="An image embedder: pictures are found by what they show."
        ),
    ]
    captions: Annotated[
        bool, Field(False, description="The vision model describes the pictures in documents: some calls a document.")
    ]

    @field_validator("chunker")
    @classmethod
    def _chunker_is_there(cls, name: str) -> str:
        if name not in chunker_names():
            raise ValueError(f"there is no chunker of this name; choose one of {', '.join(chunker_names())}")
        return name

    @model_validator(mode="after")
    def _overlap_fits(self) -> "NewCollection":
        if self.chunk_overlap * 2 > self.chunk_tokens:
            raise ValueError("chunk_overlap must be at most half of chunk_tokens")
        return self

    def options(self) -> CollectionOptions:
        return CollectionOptions(**self.model_dump(exclude={"name"}))


class ReindexBody(Strict):
    """Where to move a collection; what is not given stays as it is."""

    embedding_model: Annotated[str | None, Field(None, min_length=1, max_length=64)]
    image_model: Annotated[
        str | None, Field(None, min_length=1, max_length=64, description="For a collection that has one already.")
    ]
    engine: Annotated[
        str | None,
        Field(None, max_length=64, description="Of the server's settings `index_engines`; empty: the main one."),
    ]


class CopyBody(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64, description="Of the new collection.")]
    image_model: Annotated[
        str | None,
        Field(None, min_length=1, max_length=64, description="Its image embedder; where not given, as it is now."),
    ]
    captions: Annotated[bool | None, Field(None, description="The same for captions.")]


class NewDocument(Strict):
    """A document that is text already."""

    name: Annotated[str, Field(min_length=1, max_length=1024, examples=["notes/2024-05.md"])]
    text: Text
    media_type: Literal["text/plain", "text/markdown", "text/html", "text/csv", "application/json"] = "text/plain"
    metadata: Metadata = Field(default_factory=dict)


class DocumentsUpload(Strict):
    """Documents as JSON. Files go as `multipart/form-data` to the same address."""

    collection: CollectionName
    priority: PriorityField = Priority.BULK
    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=MAX_DOCUMENTS)]


Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class BatchUpload(Strict):
    """A batch of URLs, of a folder of the server, or of both. Files and archives go as `multipart/form-data`."""

    collection: CollectionName
    priority: PriorityField = Priority.BULK
    urls: Annotated[
        list[Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://")]],
        Field(default_factory=list, max_length=10_000),
    ]
    folder: Annotated[
        str | None,
        Field(None, min_length=1, max_length=1024, description="One that the server's operator has allowed."),
    ]
    include: Annotated[
        list[Pattern], Field(default_factory=list, max_length=64, description="Of the folder, only files like these.")
    ]
    exclude: Annotated[list[Pattern], Field(default_factory=list, max_length=64, description="No files like these.")]
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_something(self) -> "BatchUpload":
        if not self.urls and self.folder is None:
            raise ValueError("a batch has urls or a folder; files are sent as a form")
        return self


class DocumentsSelection(Strict):
    """Which documents of a collection; what is given must match. Something must be given."""

    collection: CollectionName
    filter: Filter
    statuses: Annotated[list[Annotated[DocumentStatus, Field(strict=False)]], Field(default_factory=list, max_length=4)]
    dry_run: Annotated[bool, Field(False, description="Count them, and delete nothing.")]

    @model_validator(mode="after")
    def _of_something(self) -> "DocumentsSelection":
        if not self.filter and not self.statuses:
            raise ValueError("give a filter or statuses; to delete all documents, delete the collection")
        return self


class WithImage(Strict):
    """What may come with an image: base64, a `data:` URL, or an http(s) URL. In a form also a file."""

    image: Annotated[
        str | None,
        Field(
            None,
            min_length=1,
            description="What it is about, or like: base64, a `data:` URL, or an http(s) URL. In a form also a file.",
        ),
    ]
    image_path: Annotated[
        str | None,
        Field(None, min_length=1, description="The same as a file in the server's folder of images, where it has one."),
    ]

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if self.image is not None and self.image_path is not None:
            raise ValueError("give the image or its path, not both")
        return self


class SearchBody(WithImage):
    query: Annotated[
        Text | None,
        Field(None, min_length=1, description="May be left out with an image.", examples=["How wide is the route?"]),
    ]
    collection: CollectionName
    limit: Annotated[int, Field(10, ge=1, le=100)]
    mode: Literal["fused", "dense", "fulltext"] = "fused"
    filter: Filter
    timeout_s: Timeout


class QuestionBody(WithImage):
    question: Annotated[Text, Field(min_length=1, examples=["How wide must an escape route be?"])]
    collection: CollectionName
    limit: Annotated[int, Field(8, ge=1, le=50, description="How many passages the answer may draw on.")]
    filter: Filter
    stream: Annotated[bool, Field(False, description="Answer as server-sent events.")]
    wait_s: Annotated[
        float, Field(0.0, ge=0, le=3600, description="Wait so long for the answer (the server may wait less).")
    ]
    timeout_s: Timeout


class JobsSelection(Strict):
    """Which jobs; what is given must match. Without any field: all of them."""

    states: Annotated[list[StateField], Field(default_factory=list, max_length=5)]
    kinds: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(default_factory=list, max_length=16)
    ]
    priorities: Annotated[list[PriorityField], Field(default_factory=list, max_length=3)]
    subject: Annotated[str | None, Field(None, max_length=128)]
    dry_run: Annotated[bool, Field(False, description="Count them, and change nothing.")]
