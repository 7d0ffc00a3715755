"""Questions asked through the API by several users at once, and what they took."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, quantiles

import msgspec

from penstock.client import AsyncClient
from penstock.errors import InvalidInput, PenstockError
from penstock.types import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Milliseconds are of whole calls; `stages` holds the mean milliseconds of each stage, as the server tells them."""

    questions: int
    concurrency: int
    failed: Mapping[str, int]
    seconds: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    stages: Mapping[str, float]


async def ask_all(client: AsyncClient, questions: Sequence[str], *, collection: str, concurrency: int) -> LoadReport:
    """Asks every question once; each of the users asks the next one as soon as it has its answer."""
    todo = iter(questions)
    times_ms: list[float] = []
    answers: list[Answer] = []
    failed: Counter[str] = Counter()

    async def user() -> None:
        for question in todo:
            began = time.perf_counter()
            try:
                answers.append(await client.ask(question, collection=collection))
            except PenstockError as exc:
                failed[exc.code] += 1
            else:
                times_ms.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(user())
    seconds = time.perf_counter() - began
    cuts = quantiles(times_ms, n=100, method="inclusive") if len(times_ms) > 1 else [0.0] * 99
    return LoadReport(
        questions=len(questions),
        concurrency=concurrency,
        failed=dict(failed),
        seconds=seconds,
        per_s=len(times_ms) / seconds,
        p50_ms=cuts[49],
        p95_ms=cuts[94],
        p99_ms=cuts[98],
        stages=_stages(answers),
    )


def read_questions(file: Path, count: int) -> list[str]:
    """`count` questions from a file of JSON lines (their `question` or `text`) or of plain lines, again from the start
    when it has fewer. Raises `InvalidInput` when it has none."""
    try:
        lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"The questions in {file} cannot be read: {exc}") from exc
    if not lines:
        raise InvalidInput(f"There is no question in {file}.")
    return list(islice(cycle(map(_question, lines)), count))


def _question(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        fields = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.DecodeError as exc:
        raise InvalidInput(f"A line of the questions is no JSON object: {exc}") from exc
    found = fields.get("question") or fields.get("text")
    if not isinstance(found, str):
        raise InvalidInput("A line of the questions has no `question` and no `text`.")
    return found


def _stages(answers: Sequence[Answer]) -> dict[str, float]:
    names = dict.fromkeys(stage for answer in answers for stage in answer.timings_ms)
    return {stage: fmean(answer.timings_ms.get(stage, 0.0) for answer in answers) for stage in names}
