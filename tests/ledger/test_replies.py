"""Answers to requests with an `Idempotency-Key`, on every engine."""

import asyncio

import pytest

from penstock.errors import Conflict
from penstock.ledger import Ledger
from penstock.ledger.reply_book import StoredReply

pytestmark = pytest.mark.case(9)
FIRST, SECOND = StoredReply(202, "first"), StoredReply(202, "second")


async def test_the_first_answer_is_everybodys(ledger: Ledger) -> None:
    book = ledger.replies
    assert await asyncio.gather(*(book.claim("acme", "k", "content") for _ in range(5))) == [None] * 5
    assert await book.answer("acme", "k", FIRST) == FIRST
    assert await book.answer("acme", "k", SECOND) == FIRST
    assert await book.claim("acme", "k", "content") == FIRST
    assert await book.claim("other", "k", "content") is None, "keys are a tenant's own"


async def test_other_content_is_a_conflict_also_before_the_answer(ledger: Ledger) -> None:
    await ledger.replies.claim("acme", "k", "content")
    with pytest.raises(Conflict, match="other content"):
        await ledger.replies.claim("acme", "k", "else")


async def test_a_refusal_frees_the_key_but_no_answer_is_taken_back(ledger: Ledger) -> None:
    book = ledger.replies
    await book.claim("acme", "k", "content")
    await book.release("acme", "k")
    assert await book.claim("acme", "k", "else") is None
    await book.answer("acme", "k", FIRST)
    await book.release("acme", "k")
    assert await book.claim("acme", "k", "else") == FIRST
