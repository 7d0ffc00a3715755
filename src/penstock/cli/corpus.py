"""What the benches work on: passages of a test collection, or any files."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from penstock.cli.files import find_files
from penstock.client import NewFile
from penstock.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents to upload. `source` says where they are from, for messages."""

    source: Path
    files: list[NewFile]

    def texts(self) -> list[str]:
        """The documents' texts. `InvalidInput` unless all of them are text already."""
        texts = []
        for file in self.files:
            try:
                data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
                texts.append(data.decode())
            except (OSError, UnicodeDecodeError) as exc:
                raise InvalidInput(f"{file.name} of {self.source} is no text that could be embedded as it is.") from exc
        return texts


def read_corpus(path: Path, limit: int | None = None) -> Corpus:
    """The passages of a `corpus.jsonl` (BEIR: `_id`, `text`), each as a document, or the files at the path."""
    lines = path / "corpus.jsonl"
    if not lines.is_file():
        files = find_files([path])
    else:
        with lines.open("rb") as file:
            files = [_passage(line, lines) for line in islice(file, limit)]
    if not files:
        raise InvalidInput(f"There is nothing to measure with in {path}.")
    return Corpus(source=path, files=files[:limit])


def _passage(line: bytes, source: Path) -> NewFile:
    try:
        fields = msgspec.json.decode(line, type=dict[str, object])
        name, text = str(fields["_id"]), str(fields["text"])
    except (msgspec.DecodeError, KeyError) as exc:
        raise InvalidInput(f"A line of {source} is no passage with `_id` and `text`: {exc}") from exc
    return NewFile(name=f"{name}.txt", content=text.encode(), media_type="text/plain")
