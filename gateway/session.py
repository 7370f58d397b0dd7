"""What was said before in a session, as the turns that a model is shown."""

from dataclasses import dataclass

from holdfast.contracts import AnswerDocument, Turn
from holdfast.contracts.conversation import MAX_TEXT
from holdfast.errors import ContentMissing
from holdfast.ledger import FinishedRequest, Ledger


@dataclass(frozen=True)
class Earlier:
    """What was said before."""

    turns: tuple[Turn, ...]
    tainted: tuple[str, ...]
    """Origins of outside text that the models behind its answers were shown: an answer may repeat what such text says,
    so it taints whoever is shown it, whichever agent that is."""


async def earlier_turns(ledger: Ledger, tenant: str, user: str, session: str, *, limit: int) -> Earlier:
    """The latest exchanges of a user's session, oldest first: each question as it came, and its answer as delivered.

    Both may hold personal data; the run masks them together with the new question. Left out are exchanges whose text
    was pruned, and those that ended with a call of the client's tools, whose results nobody kept.

    Args:
        ledger: Where ended requests are.
        tenant: The paying party.
        user: Whose session; sessions of the same name of two users are two sessions.
        session: Its name.
        limit: Most exchanges.
    """
    found = await ledger.requests.of_session(tenant, user, session, limit=limit)
    turns: list[Turn] = []
    tainted: dict[str, None] = {}
    for ended in found:
        if exchange := await _exchange(ledger, ended):
            turns += exchange
            tainted |= dict.fromkeys(ended.answer.tainted)
    return Earlier(tuple(turns), tuple(tainted))


async def _exchange(ledger: Ledger, ended: FinishedRequest) -> tuple[Turn, ...]:
    if ended.input is None or ended.answer.document is None:
        return ()
    try:
        question, text = await ledger.contents.get_many(ended.tenant, (ended.input, ended.answer.document))
    except ContentMissing:
        return ()
    document = AnswerDocument.model_validate_json(text)
    if document.tool_calls or not document.text or len(document.text) > MAX_TEXT:
        return ()
    return Turn(role="user", content=question), Turn(role="assistant", content=document.text)
