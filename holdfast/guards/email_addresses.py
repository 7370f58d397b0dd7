"""Finds e-mail addresses. Pure, and linear in the length of the text.

presidio's own pattern tries every start of a word and needs the public suffix list; looking left and right of each
`@` needs neither.
"""

import re

from holdfast.guards.spans import Span

_LOCAL_CHARACTERS = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]{1,64}\Z")
_LEADING_PUNCTUATION = "'`{|}~/=?!.*&#$%^"
_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?[.\u3002]){1,8}"
    r"(?:xn--[a-z0-9-]{1,58}[a-z0-9]|[^\W\d_]{2,63})(?![^\W_])",
    re.IGNORECASE,
)
_LOCAL_LIMIT = 64
"""Longest local part, RFC 5321 section 4.5.3.1.1."""


def find_email_addresses(text: str) -> list[Span]:
    """Find addresses of the form `local@domain.tld` (RFC 5321 dot-string, internationalised ones included).

    The last label must be alphabetic, so `lodash@4.17.21` is a package version and no address. Quoted local parts and
    address literals (`user@[192.0.2.1]`) are not looked for.

    Args:
        text: Any text.

    Returns:
        Spans of kind `EMAIL`, in the order of the text.
    """
    spans: list[Span] = []
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_CHARACTERS.search(text, max(0, at - _LOCAL_LIMIT), at)
        domain = _DOMAIN.match(text, at + 1)
        if local and domain:
            start = at - len(local.group().lstrip(_LEADING_PUNCTUATION))
            if start < at and text[at - 1] != ".":
                spans.append(Span(start, domain.end(), "EMAIL"))
        at = text.find("@", at + 1)
    return spans
