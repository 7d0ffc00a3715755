"""`bench` and `eval` on a small collection in BEIR's layout: what they print, not how fast it is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.cli.corpus import read_corpus
from penstock.cli.load import read_questions
from penstock.errors import InvalidInput

PASSAGES = {
    "d1": "The lighthouse keeper lights the lamp at dusk.",
    "d2": "A baker bakes bread before sunrise.",
    "d3": "The ferry to the island leaves twice a day.",
}


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    def write(name: str, rows: list[dict[str, object]]) -> None:
        (tmp_path / name).write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows) + b"\n")

    write("corpus.jsonl", [{"_id": name, "title": "", "text": text} for name, text in PASSAGES.items()])
    write(
        "queries.jsonl", [{"_id": "q1", "text": "When does the lighthouse keeper light the lamp?", "answers": ["dusk"]}]
    )
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return tmp_path


def test_eval_measures_every_lane(cli: Any, beir: Path) -> None:
    report = cli("eval", beir, "--json").json
    perfect = {"hit@1": 1.0, "recall@10": 1.0, "mrr@10": 1.0, "ndcg@10": 1.0}
    assert report["dense"] == report["fulltext"] == report["fused"] == perfect
    assert (report["answer_in_top"], report["queries"], report["passages"]) == (1.0, 1, 3)
    shown = cli("eval", beir)
    assert shown.out.splitlines()[3] == "fused\t1.0\t1.0\t1.0\t1.0"


def test_eval_of_no_collection_is_wrong_usage(cli: Any, tmp_path: Path) -> None:
    result = cli("eval", tmp_path, "--json")
    assert result.status == 2
    assert "corpus.jsonl" in result.json["error"]["message"]


def test_bench_embed(cli: Any, beir: Path) -> None:
    report = cli("bench", "embed", beir, "--limit", "2", "--json").json
    assert report["texts"] == 2
    assert report["tokens"] > 10
    assert report["texts_per_s"] > 0


def test_bench_ingest_leaves_nothing_behind(cli: Any, server: str, beir: Path) -> None:
    result = cli("bench", "ingest", beir, "--rounds", "1", "--with-embed", "--json")
    assert result.status == 0, result.err
    assert (result.json["documents"], result.json["chunks"]) == (3, 3)
    assert result.json["over_embed"] > 0
    assert not [one for one in cli("collections", "list", "--json").json if one["name"].startswith("bench-")]


def test_bench_questions(cli: Any, examples: Path) -> None:
    report = cli("bench", "questions", examples / "questions.jsonl", "-n", "20", "--concurrency", "4", "--json").json
    assert (report["questions"], report["concurrency"], report["failed"]) == (20, 4, {})
    assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
    assert {"queue_wait", "embed", "retrieve", "total"} <= report["stages"].keys()


def test_bench_questions_counts_failures(cli: Any, server: str, examples: Path) -> None:
    result = cli("bench", "questions", examples / "questions.jsonl", "-n", "2", "-c", "nowhere", "--json")
    assert result.status == 1
    assert result.json["failed"] == {"not_found": 2}


def test_questions_come_from_json_lines_or_plain_ones(tmp_path: Path) -> None:
    file = tmp_path / "questions"
    file.write_text('{"question": "Why?"}\n{"_id": "q", "text": "How?"}\nWhen?\n')
    assert read_questions(file, 5) == ["Why?", "How?", "When?", "Why?", "How?"]
    file.write_text('{"other": 1}\n')
    with pytest.raises(InvalidInput, match="no `question`"):
        read_questions(file, 1)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_questions(tmp_path / "nowhere", 1)


def test_a_corpus_is_passages_or_files(beir: Path, tmp_path: Path) -> None:
    assert [file.name for file in read_corpus(beir, 2).files] == ["d1.txt", "d2.txt"]
    assert read_corpus(beir).texts() == list(PASSAGES.values())
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="no text"):
        read_corpus(folder).texts()
    (beir / "corpus.jsonl").write_text('{"_id": "d1"}\n')
    with pytest.raises(InvalidInput, match="no passage"):
        read_corpus(beir)
