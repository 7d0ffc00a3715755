"""Files that are small to send and huge to read. `python bench/hostile.py` takes the heavy ones too."""

import asyncio
import resource

import pytest

from penstock.errors import InvalidInput, ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.testing.bombs import BOMBS

OPTIONS = ParsingOptions(processes=2, time_limit_s=40, memory_limit_mb=256)
QUICK = ("entries.docx", "laughs.docx", "quadratic.docx", "frames.gif", "nested.eml")


async def outcome(pool: ParserPool, name: str, data: bytes) -> str:
    try:
        await pool.parse(data, name=name, media_type=media.sniff(name, data[: media.HEAD_BYTES], None))
    except (ParseError, InvalidInput) as exc:
        return exc.code
    return "done"


@pytest.mark.case(30)
@pytest.mark.parametrize("name", QUICK)
async def test_a_bomb_harms_nobody(name: str) -> None:
    data = BOMBS[name]()
    async with ParserPool(OPTIONS) as pool:
        await pool.prewarm()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bad = asyncio.create_task(outcome(pool, name, data))
        others = await asyncio.gather(*(pool.parse(b"fine", name="a.txt", media_type=media.TEXT) for _ in range(5)))
        assert [other.text for other in others] == ["fine"] * 5
        assert await bad in {
            *("done", "archive_bomb", "parse_failed", "memory_limit", "parser_crashed"),
            *("text_too_long", "time_limit", "encrypted"),
        }
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
        assert (await pool.parse(b"alive", name="a.txt", media_type=media.TEXT)).text == "alive"
