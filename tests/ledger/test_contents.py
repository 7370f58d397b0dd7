"""Immutable texts by digest."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from holdfast.contracts import ContentRef
from holdfast.errors import ContentMissing, InvalidInput
from holdfast.ledger import Contents, Ledger
from holdfast.ledger.contents import digest_of
from holdfast.ledger.schema import contents


async def test_a_text_comes_back_as_it_was(ledger: Ledger) -> None:
    fresh = Contents(ledger.database)
    for text in ("", "plain", "naïve 中文 \U0001f600", "nul \x00 inside", "line\r\nends\n", "x" * 200_000):
        reference = await ledger.contents.put("acme", text)
        assert reference == ContentRef(sha256=hashlib.sha256(text.encode()).hexdigest(), size=len(text.encode()))
        assert await fresh.get("acme", reference) == text


@given(st.text(st.characters(exclude_categories=[])))
@settings(max_examples=200)
def test_a_digest_is_of_the_exact_bytes_or_refused(text: str) -> None:
    try:
        expected = hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        with pytest.raises(InvalidInput):
            digest_of(text)
    else:
        assert digest_of(text).reference.sha256 == expected


async def test_a_lone_surrogate_is_refused_with_its_place(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput, match="surrogate stands at character 2"):
        await ledger.contents.put("acme", "ab\ud800cd")


async def test_one_tenant_cannot_read_anothers_text_even_from_the_cache(ledger: Ledger) -> None:
    reference = await ledger.contents.put("acme", "secret")
    assert await ledger.contents.get("acme", reference) == "secret"
    for reader in (ledger.contents, Contents(ledger.database)):
        with pytest.raises(ContentMissing, match=reference.sha256):
            await reader.get("globex", reference)


async def test_the_same_text_of_two_tenants_is_stored_for_both(ledger: Ledger) -> None:
    for tenant in ("acme", "globex"):
        await ledger.contents.put(tenant, "shared")
    fresh = Contents(ledger.database)
    reference = digest_of("shared").reference
    assert [await fresh.get(tenant, reference) for tenant in ("acme", "globex")] == ["shared", "shared"]


async def test_storing_again_changes_nothing(ledger: Ledger) -> None:
    references = {await Contents(ledger.database).put("acme", "once") for _ in range(3)}
    assert len(references) == 1


async def test_many_texts_keep_their_order_and_may_repeat(ledger: Ledger) -> None:
    texts = ["b", "a", "b", "c"]
    references = await ledger.contents.put_many("acme", texts)
    assert await Contents(ledger.database).get_many("acme", references) == tuple(texts)
    assert await ledger.contents.get_many("acme", ()) == ()


async def test_one_missing_text_among_many_is_named(ledger: Ledger) -> None:
    stored = await ledger.contents.put("acme", "here")
    absent = digest_of("not here").reference
    with pytest.raises(ContentMissing, match=absent.sha256):
        await ledger.contents.get_many("acme", (stored, absent))


async def test_a_text_of_a_rolled_back_transaction_is_stored_when_put_again(ledger: Ledger) -> None:
    def fails(connection: Connection) -> None:
        ledger.contents.add(connection, "acme", [digest_of("twice")])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ledger.database.write(fails)
    reference = await ledger.contents.put("acme", "twice")
    assert await Contents(ledger.database).get("acme", reference) == "twice"


async def test_a_cached_text_needs_no_database_and_the_oldest_make_room(ledger: Ledger) -> None:
    cached = Contents(ledger.database, cache_bytes=20)
    old, new = await cached.put("acme", "1" * 10), await cached.put("acme", "2" * 10)
    assert await cached.get("acme", old) == "1" * 10  # now `new` is the one unused for longest
    third = await cached.put("acme", "3" * 10)
    huge = await cached.put("acme", "4" * 21)
    await ledger.database.write(lambda connection: connection.execute(contents.delete()).close())
    assert await cached.get_many("acme", (old, third)) == ("1" * 10, "3" * 10)
    for forgotten in (new, huge):
        with pytest.raises(ContentMissing):
            await cached.get("acme", forgotten)


async def test_a_text_read_once_is_cached(ledger: Ledger) -> None:
    reference = await ledger.contents.put("acme", "read")
    reader = Contents(ledger.database)
    await reader.get("acme", reference)
    await ledger.database.write(lambda connection: connection.execute(contents.delete()).close())
    assert await reader.get("acme", reference) == "read"
