"""What was said before in a session, as the turns that a model is shown."""

from holdfast.contracts import AnswerDocument, Turn
from holdfast.contracts.conversation import MAX_TEXT
from holdfast.errors import ContentMissing
from holdfast.ledger import FinishedRequest, Ledger


async def earlier_turns(ledger: Ledger, tenant: str, user: str, session: str, *, limit: int) -> tuple[Turn, ...]:
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
    for ended in found:
        turns += await _exchange(ledger, ended)
    return tuple(turns)


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
