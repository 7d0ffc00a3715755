"""Reads test collections in the layout of BEIR: `corpus.jsonl`, `queries.jsonl` and relevance judgements as TSV."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from penstock.errors import InvalidInput
from penstock.types import JSON

QRELS = ("qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")


@dataclass(frozen=True, slots=True)
class Passage:
    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question with its relevant passages (grades above 0) and, where the set has them, strings that answer it."""

    id: str
    text: str
    relevant: Mapping[str, float]
    answers: Sequence[str] = ()


class BeirFolder:
    """A folder in BEIR's layout. `InvalidInput` names the file and line of whatever cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._corpus = folder / "corpus.jsonl"
        self._queries = folder / "queries.jsonl"
        self._qrels = next((folder / name for name in QRELS if (folder / name).is_file()), folder / QRELS[0])
        for file in (self._corpus, self._queries, self._qrels):
            if not file.is_file():
                raise InvalidInput(f"{folder} is no test collection: it has no {file.name} (BEIR's layout is expected)")
        self._offsets: dict[str, int] = {}

    def passages(self) -> Iterator[Passage]:
        """Every passage once, in the file's order."""
        for offset, line, fields in _records(self._corpus):
            passage = _passage(_id(fields, self._corpus, line), fields)
            if passage.id not in self._offsets:
                self._offsets[passage.id] = offset
                yield passage

    def read(self, ids: Sequence[str]) -> list[Passage]:
        """Passages that `passages` has given before, read from the file again."""
        with self._corpus.open("rb") as file:
            return [self._at(passage_id, file) for passage_id in ids]

    def _at(self, passage_id: str, file: BinaryIO) -> Passage:
        file.seek(self._offsets[passage_id])
        return _passage(passage_id, json.loads(file.readline()))

    def queries(self) -> list[JudgedQuery]:
        """The questions that have a relevant passage."""
        relevant = self._relevant()
        queries = []
        for _, line, fields in _records(self._queries):
            query_id = _id(fields, self._queries, line)
            if query_id in relevant:
                answers = tuple(str(answer) for answer in fields.get("answers") or () if str(answer).strip())
                queries.append(JudgedQuery(query_id, _text(fields), relevant.pop(query_id), answers))
        return queries

    def _relevant(self) -> dict[str, dict[str, float]]:
        """By question: `query-id corpus-id score`, or TREC's four columns; a header line is skipped."""
        relevant: dict[str, dict[str, float]] = {}
        with self._qrels.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                columns = line.split()
                if not columns:
                    continue
                try:
                    query_id, passage_id, grade = columns[0], columns[-2], float(columns[-1])
                except (ValueError, IndexError) as exc:
                    if number == 1:
                        continue
                    raise InvalidInput(f"{self._qrels}:{number}: expected query-id, corpus-id and a score") from exc
                if grade > 0:
                    relevant.setdefault(query_id, {})[passage_id] = grade
        return relevant


def _records(file: Path) -> Iterator[tuple[int, int, Mapping[str, JSON]]]:
    """Byte offset, line number and object of every line."""
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    fields = json.loads(line)
                except ValueError as exc:
                    raise InvalidInput(f"{file}:{number}: not valid JSON: {exc}") from exc
                if not isinstance(fields, dict):
                    raise InvalidInput(f"{file}:{number}: expected a JSON object")
                yield offset, number, fields
            offset += len(line)


def _passage(passage_id: str, fields: Mapping[str, JSON]) -> Passage:
    return Passage(passage_id, str(fields.get("title") or ""), _text(fields))


def _id(fields: Mapping[str, JSON], file: Path, line: int) -> str:
    if "_id" not in fields:
        raise InvalidInput(f"{file}:{line}: there is no _id")
    return str(fields["_id"])


def _text(fields: Mapping[str, JSON]) -> str:
    return str(fields.get("text") or "")
