"""What `make demo` runs: a server on a folder of its own, the example documents, a few questions, and their answers.

Exit status 0 when every document is searchable and every answer comes from the right one. A second run finds everything
indexed already.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.cli.ask import citation_lines, timing_line
from penstock.client import Client
from penstock.errors import PenstockError
from penstock.types import Answer

EXAMPLES = Path(__file__).resolve().parent
FOLDER = EXAMPLES.parent / ".demo"
PENSTOCK = [sys.executable, "-m", "penstock"]
ASKED = ("zh-manhole", "en-manhole", "zh-billboard", "zh-underpass", "en-footage", "en-cafe", "en-none")
STOPS_WITHIN_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`document` and `answer` are None where no document holds the answer."""

    id: str
    language: str
    question: str
    document: str | None
    answer: str | None


class DemoError(Exception):
    """Why the demo failed, in one line."""


@contextmanager
def running_server() -> Iterator[str]:
    """A `penstock serve` on the demo's folder; its URL, once it is ready."""
    FOLDER.mkdir(exist_ok=True)
    log = FOLDER / "serve.log"
    command = [*PENSTOCK, "serve", "--data-dir", str(FOLDER / "data"), "--port", "0"]
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise DemoError(f"The server did not start. The end of {log}:\n{log.read_text()[-2000:]}")
            yield line.split()[-1]
        finally:
            server.terminate()
            try:
                server.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                server.kill()


def ingest(url: str) -> None:
    done = subprocess.run([*PENSTOCK, "ingest", str(EXAMPLES / "documents"), "--url", url], check=False)
    if done.returncode:
        raise DemoError("Not every example document was ingested; the lines above say why.")


def ask(client: Client, question: Question) -> None:
    """Prints the answer. Raises `DemoError` when it is not the one that the documents hold."""
    answer = client.ask(question.question)
    citations = "\n".join(citation_lines(answer.citations))
    paragraphs = [f"▸ {question.question}", answer.text, citations, f"  {timing_line(answer)}"]
    print("\n" + "\n\n".join(paragraph for paragraph in paragraphs if paragraph))
    if wrong := fault(question, answer):
        raise DemoError(f"{wrong} Question: {question.question}")


def fault(question: Question, answer: Answer) -> str:
    """What is wrong with an answer, if anything."""
    cited = [citation.document_name for citation in answer.citations]
    if answer.found != (question.document is not None):
        return "An answer was found where there is none." if answer.found else "No answer was found."
    if question.document and question.document not in cited:
        return f"The answer should cite {question.document}, and cites {', '.join(cited)}."
    return ""


def questions() -> list[Question]:
    lines = (EXAMPLES / "questions.jsonl").read_text("utf-8").splitlines()
    by_id = {question.id: question for question in (msgspec.json.decode(line, type=Question) for line in lines)}
    return [by_id[question_id] for question_id in ASKED]


def main() -> int:
    started = time.monotonic()
    try:
        print("Starting a server on a folder of its own: .demo/ …", flush=True)
        with running_server() as url:
            print(
                f"Ready after {time.monotonic() - started:.1f} s on {url}. Ingesting examples/documents …", flush=True
            )
            ingest(url)
            with Client(url) as client:
                for question in questions():
                    ask(client, question)
    except KeyboardInterrupt:
        print("\nInterrupted; the server is stopped.", file=sys.stderr)
        return 130
    except (DemoError, PenstockError) as exc:
        print(f"\nThe demo failed: {exc}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - started:.1f} s; the server is stopped. To go on with these documents:\n")
    print("    . .venv/bin/activate")
    print("    penstock serve --data-dir .demo/data &          # docs/openapi.json describes the routes")
    print('    penstock ask "占道经营的处罚标准是什么？"')
    print("    penstock ingest FOLDER                          # your own documents\n")
    print("docs/map.md shows the code on one page, README.md how to set a language model that writes answers.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
