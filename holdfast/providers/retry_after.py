"""How long a provider asks to wait, from the headers of its answer. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

_MILLISECOND_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Read the wait a provider asks for, honoured in full however long it is.

    `retry-after-ms` (OpenAI) and `x-ms-retry-after-ms` (Azure) are exacter and win over `retry-after`, which holds
    seconds, whole or not, or an HTTP date (RFC 9110, section 10.2.3). A value that is none of these is ignored.

    Args:
        headers: Of the answer; names in any case.
        now: Aware; what an HTTP date is compared with. A date that has passed means no wait.

    Returns:
        A span of zero or more, or `None` when no header says anything usable.
    """
    by_name = {name.lower(): value.strip() for name, value in headers.items()}
    for name in _MILLISECOND_HEADERS:
        if (wait := _span(by_name.get(name, ""), timedelta(milliseconds=1))) is not None:
            return wait
    value = by_name.get("retry-after", "")
    wait = _span(value, timedelta(seconds=1))
    return wait if wait is not None else _until(value, now)


def _span(value: str, unit: timedelta) -> timedelta | None:
    if not _NUMBER.fullmatch(value):
        return None
    try:
        return float(value) * unit
    except OverflowError:
        return None


def _until(value: str, now: datetime) -> timedelta | None:
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(moment - now, timedelta(0))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
