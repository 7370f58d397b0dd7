"""Answers made of quotes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.contracts import FinishReason, Passage
from holdfast.errors import Outcome, ProviderError
from holdfast.providers import Completed, Extractive, ModelCall, TextDelta
from holdfast.providers.extractive import NO_ANSWER, best_sentences, stem, terms
from holdfast.providers.sentences import plain, statements
from holdfast.tokens import count_tokens


def passage(text: str, score: float = 0.5, source: str = "a.md") -> Passage:
    return Passage(source=source, start=0, end=len(text), text=text, score=score)


REFUNDS = passage(
    """# Refunds

## How long do I have to return an item?

You can return most items within **30 days** of delivery. Items must be unused, e.g. still
in the original packaging. See [the form](https://example.com/form).

| Plan | Return window |
|---|---|
| Gold | 60 days |

Refunds are issued to the original payment method within 5 business days. [3]
""",
    score=0.62,
    source="refunds.md",
)
SHIPPING = passage(
    """Shipping
========

We ship to every country in the European Union, Norway and Switzerland.

```
curl -X POST /express/delivery/cost
```

- Express delivery costs 12 EUR and takes one day.
- Parcels above 30 kg are delivered by freight.
""",
    score=0.41,
    source="shipping.md",
)
PASSAGES = (REFUNDS, SHIPPING)


def call(question: str, passages: tuple[Passage, ...] = PASSAGES, **changes: Any) -> ModelCall:
    return ModelCall(
        **{
            "model": "extractive-1",
            "messages": (),
            "max_output_tokens": 500,
            "question": question,
            "passages": passages,
            **changes,
        }
    )


async def answer(model_call: ModelCall) -> tuple[str, Completed]:
    events = [event async for event in Extractive().complete(model_call)]
    *deltas, completed = events
    assert isinstance(completed, Completed)
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)), completed


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (
            "How long do I have to return an item?",
            "You can return most items within 30 days of delivery. [1] "
            "Items must be unused, e.g. still in the original packaging. [1]",
        ),
        ("How long do customers have to return stuff?", "You can return most items within 30 days of delivery. [1]"),
        (
            "When will I get my refund?",
            "Refunds are issued to the original payment method within 5 business days. [1]",
        ),
        ("What does express delivery cost?", "Express delivery costs 12 EUR and takes one day. [2]"),
        (
            "Which countries do you ship to?",
            "We ship to every country in the European Union, Norway and Switzerland. [2]",
        ),
    ],
)
async def test_the_supporting_sentence_is_quoted_with_its_marker(question: str, text: str) -> None:
    reply, completed = await answer(call(question))
    assert reply == text
    assert completed.finish_reason is FinishReason.STOP
    assert completed.model == "extractive-1"


@pytest.mark.parametrize(
    ("question", "passages"),
    [
        ("What is the capital of France?", PASSAGES),
        ("Who wrote Hamlet?", PASSAGES),
        ("How long do I have to return an item?", ()),
        ("", PASSAGES),
        ("what is it?", PASSAGES),
    ],
)
async def test_without_support_the_reply_says_so_and_cites_nothing(
    question: str, passages: tuple[Passage, ...]
) -> None:
    reply, _ = await answer(call(question, passages))
    assert reply == NO_ANSWER


async def test_several_sentences_come_in_reading_order_each_with_its_marker() -> None:
    passages = (
        passage("Backups run every night. Backups are kept for 30 days on a second site."),
        passage("Operators restore backups with the restore command."),
    )
    reply, _ = await answer(call("Which operators restore backups that are kept?", passages))
    assert reply == (
        "Backups are kept for 30 days on a second site. [1] Operators restore backups with the restore command. [2]"
    )


async def test_the_heading_above_a_sentence_counts_as_its_topic() -> None:
    faq = passage("## Can customers pay by invoice?\n\nWrite to the accounting office once a year.", score=0.5)
    reply, _ = await answer(call("May customers pay with an invoice?", (faq,)))
    assert reply == "Write to the accounting office once a year. [1]"


FOUR_ON_INVOICES = """{first} Accountants keep paper invoices safe. Auditors check old invoices yearly.
{last}"""


def test_a_question_for_a_quantity_prefers_the_sentence_with_a_number() -> None:
    text = FOUR_ON_INVOICES.format(
        first="Customers print their invoices themselves.", last="Archives hold invoices 10 years."
    )
    quotes = [sentence for _, sentence in best_sentences("How long are invoices stored?", [passage(text)])]
    assert "Archives hold invoices 10 years." in quotes


def test_a_sentence_that_leans_on_the_one_before_gives_way_to_one_that_stands_alone() -> None:
    text = FOUR_ON_INVOICES.format(
        first="They print invoices themselves somehow.", last="Archives hold many invoices underground."
    )
    quotes = [sentence for _, sentence in best_sentences("Where are invoices stored?", [passage(text)])]
    assert "They print invoices themselves somehow." not in quotes
    assert len(quotes) == 3


async def test_a_repeated_sentence_is_quoted_once() -> None:
    twice = passage("The office closes at 18:00 on Fridays.")
    reply, _ = await answer(call("When does the office close on Fridays?", (twice, twice)))
    assert reply == "The office closes at 18:00 on Fridays. [1]"


async def test_equal_calls_get_equal_replies_and_counts() -> None:
    model_call = call("What does express delivery cost?")
    assert await answer(model_call) == await answer(model_call)


async def test_usage_counts_what_was_read_and_written() -> None:
    question = "What does express delivery cost?"
    reply, completed = await answer(call(question))
    assert completed.usage is not None
    read = count_tokens(question) + count_tokens(REFUNDS.text) + count_tokens(SHIPPING.text)
    assert completed.usage.input_tokens == read
    assert completed.usage.output_tokens == count_tokens(reply)


async def test_the_reply_stops_at_the_limit_and_says_so() -> None:
    whole, _ = await answer(call("What does express delivery cost?"))
    for limit in range(1, count_tokens(whole)):
        reply, completed = await answer(call("What does express delivery cost?", max_output_tokens=limit))
        assert completed.finish_reason is FinishReason.LENGTH
        assert completed.usage is not None
        assert completed.usage.output_tokens == limit
        assert whole.startswith(reply)


def schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string"}
MARKERS = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("output_schema", "names"),
    [
        (schema({"answer": TEXT}, "answer"), {"answer"}),
        (schema({"text": TEXT, "sources": MARKERS}, "text", "sources"), {"text", "sources"}),
        (schema({"summary": TEXT, "citations": MARKERS, "mood": TEXT}, "summary"), {"summary", "citations"}),
    ],
)
async def test_a_schema_of_text_and_markers_is_filled(output_schema: dict[str, Any], names: set[str]) -> None:
    reply, _ = await answer(call("What does express delivery cost?", output_schema=output_schema))
    filled = json.loads(reply)
    assert set(filled) == names
    for name in names & {"answer", "text", "summary"}:
        assert filled[name] == "Express delivery costs 12 EUR and takes one day. [2]"
    for name in names & {"sources", "citations"}:
        assert filled[name] == [2]


async def test_a_schema_is_filled_without_support_too() -> None:
    output_schema = schema({"answer": TEXT, "citations": MARKERS}, "answer")
    reply, _ = await answer(call("Who wrote Hamlet?", output_schema=output_schema))
    assert json.loads(reply) == {"answer": NO_ANSWER, "citations": []}


@pytest.mark.parametrize(
    "output_schema",
    [
        schema({"answer": TEXT, "urgency": {"type": "integer"}}, "answer", "urgency"),
        schema({"answer": {"type": "integer"}}, "answer"),
        schema({"answer": TEXT, "citations": {"type": "array", "items": TEXT}}, "citations"),
        {"type": "string"},
        {},
        {"type": "object", "properties": True},
    ],
)
async def test_a_schema_that_quotes_cannot_fill_is_an_invalid_request(output_schema: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="output schema") as caught:
        await answer(call("What does express delivery cost?", output_schema=output_schema))
    assert caught.value.outcome is Outcome.INVALID_REQUEST


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=200), max_size=4))
def test_every_quote_is_a_statement_of_the_passage_it_cites(question: str, texts: list[str]) -> None:
    passages = [passage(text) for text in texts]
    for marker, sentence in best_sentences(question, passages):
        assert sentence in [statement.text for statement in statements(passages[marker - 1].text)]


# --- sentences --------------------------------------------------------------------------------------------------------


def test_headings_questions_and_leads_are_topics_and_tables_and_code_are_left_out() -> None:
    assert [(statement.text, statement.topic) for statement in statements(REFUNDS.text)] == [
        (
            "You can return most items within 30 days of delivery.",
            "How long do I have to return an item?",
        ),
        (
            "Items must be unused, e.g. still in the original packaging.",
            "How long do I have to return an item?",
        ),
        ("See the form.", "How long do I have to return an item?"),
        (
            "Refunds are issued to the original payment method within 5 business days.",
            "How long do I have to return an item?",
        ),
    ]
    assert [(statement.text, statement.topic) for statement in statements(SHIPPING.text)] == [
        ("We ship to every country in the European Union, Norway and Switzerland.", "Shipping"),
        ("Express delivery costs 12 EUR and takes one day.", "Shipping"),
        ("Parcels above 30 kg are delivered by freight.", "Shipping"),
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Version 3.11 is required. It is free.", ["Version 3.11 is required.", "It is free."]),
        ("Ask Dr. Smith about it. He knows more.", ["Ask Dr. Smith about it.", "He knows more."]),
        ("Use e.g. Postgres for the ledger.", ["Use e.g. Postgres for the ledger."]),
        ('She said "Stop it now." Then she left the room.', ['She said "Stop it now."', "Then she left the room."]),
        ("the tail of a sentence that began elsewhere. A whole one follows.", ["A whole one follows."]),
        ("You need:\n- A valid passport\n- Two recent photographs", ["Two recent photographs", "A valid passport"]),
        ("请在三十天内退货。退款需要五天。", ["请在三十天内退货。", "退款需要五天。"]),
        ("x = {y: [1, 2, 3]}; f(x) += 1 // {{}}", []),
    ],
)
def test_sentences_are_cut_where_a_reader_would(text: str, sentences: list[str]) -> None:
    assert sorted(statement.text for statement in statements(text)) == sorted(sentences)


@pytest.mark.parametrize(
    ("marked", "read"),
    [
        ("**bold** and *italic* and __both__ and _one_", "bold and italic and both and one"),
        ("`code` in [a link](https://h/x) and ![a picture](y.png)", "code in a link and"),
        ("keep snake_case_names and 2 * 3 * 4", "keep snake_case_names and 2 * 3 * 4"),
        ("see note [12], <b>now</b>", "see note, now"),
    ],
)
def test_markdown_is_taken_off(marked: str, read: str) -> None:
    assert plain(marked) == read


@pytest.mark.parametrize(
    "words",
    [
        ("cancel", "cancels", "cancelled", "cancelling", "cancellation", "cancellations"),
        ("ship", "ships", "shipped", "shipping", "shipment"),
        ("issue", "issues", "issued", "issuing"),
        ("policy", "policies"),
        ("country", "countries"),
        ("address", "addressed"),
    ],
)
def test_forms_of_a_word_share_a_stem(words: tuple[str, ...]) -> None:
    assert len({stem(word) for word in words}) == 1


def test_different_words_keep_different_stems() -> None:
    assert len({stem(word) for word in ("this", "bus", "class", "bill", "ship", "return", "refund")}) == 7


def test_stop_words_are_no_terms() -> None:
    assert terms("What is the price of it?") == {stem("price")}
