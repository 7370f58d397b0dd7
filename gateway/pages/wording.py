"""What went wrong, in the words of somebody who reads it on a page: the API's remedies speak of calls and fields."""

from gateway.problems import Problem

_HEADINGS = {
    400: "This address is not right",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This is not a page",
    409: "This has changed meanwhile",
    410: "This is no longer stored",
    413: "That was too much",
    415: "This cannot be read",
    422: "This does not fit",
    429: "Too many attempts",
    500: "Something broke here",
}

_DETAILS = {
    "not-found": "There is no page at this address.",
    "method-not-allowed": "This address is not made to be opened.",
}
_REMEDIES = {
    "not-found": "Check the address, or begin at the inbox.",
    "no-such-request": "Check the address, or choose from the list of requests. It may belong to someone else.",
    "method-not-allowed": "It takes what a button sends. Use the button in the inbox.",
    "invalid-parameter": "Go to the inbox and use the links there.",
    "unsupported-media-type": "Go to the inbox and use the buttons there; they need JavaScript.",
    "internal": "Try again. If it repeats, tell whoever runs Holdfast the reference below; the log has more under it.",
    "too-large": "Send less: shorten the text, and try again.",
    "already-final": "Nothing needs to be done; the page of the request shows how it ended.",
}
"""Both by the problem's slug."""

_DECISIONS = {
    "not_open": "Nothing needs to be done; the inbox shows what still waits.",
    "already_decided": "Nothing needs to be done; the page of the request shows its outcome.",
    "too_late": "Open the question again: others may be asked now. If it is over, a new request is needed.",
    "other_content": "Open the question again and read what waits now, before you decide.",
    "not_named": "Ask one of those who may decide; the question names them.",
    "own_request": "Ask someone else to decide.",
    "no_edit": "Approve or reject it as it is.",
    "no_payload": "Write the new text and send it again.",
}
"""By the code of a refused decision; other remedies say the same to everybody."""


def for_people(problem: Problem) -> Problem:
    """The same problem, told to somebody who has a browser and no program."""
    remedy = _DECISIONS.get(str(problem.extra.get("code"))) if problem.slug == "decision-refused" else None
    remedy = remedy or _REMEDIES.get(problem.slug)
    if remedy is None:
        return problem
    return Problem(
        problem.status,
        problem.slug,
        problem.title,
        _DETAILS.get(problem.slug, problem.detail),
        remedy=remedy,
        field=problem.field,
        headers=problem.headers,
        extra=problem.extra,
    )


def heading_of(problem: Problem) -> str:
    """What a page about a problem begins with."""
    if problem.slug == "unavailable":
        return "The ledger does not answer" if problem.detail.startswith("The ledger") else "The engine does not answer"
    return _HEADINGS.get(problem.status, problem.title) if problem.slug != "stale-page" else problem.title
