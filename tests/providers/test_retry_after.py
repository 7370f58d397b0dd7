"""How long providers ask to wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.providers import retry_after

NOW = datetime(2026, 11, 6, 8, 49, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "20"}, timedelta(seconds=20)),
        ({"Retry-After": " 1.5 "}, timedelta(seconds=1.5)),
        ({"retry-after": "0"}, timedelta(0)),
        ({"retry-after": "172800"}, timedelta(days=2)),
        ({"retry-after-ms": "250"}, timedelta(milliseconds=250)),
        ({"retry-after-ms": "250", "retry-after": "1"}, timedelta(milliseconds=250)),
        ({"x-ms-retry-after-ms": "1500", "retry-after": "2"}, timedelta(seconds=1.5)),
        ({"retry-after-ms": "soon", "retry-after": "2"}, timedelta(seconds=2)),
        ({"retry-after": "Fri, 06 Nov 2026 08:49:37 GMT"}, timedelta(seconds=30)),
        ({"retry-after": "Friday, 06-Nov-26 08:50:07 GMT"}, timedelta(seconds=60)),
        ({"retry-after": "Fri, 06 Nov 2026 09:49:07 +0100"}, timedelta(0)),
        ({"retry-after": "Fri, 06 Nov 2026 08:49:37 -0000"}, timedelta(seconds=30)),
        ({"retry-after": "Fri, 06 Nov 2020 08:49:37 GMT"}, timedelta(0)),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "in a minute"}, None),
        ({"retry-after": "Fri, 99 Nov 2026 08:49:37 GMT"}, None),
    ],
)
def test_the_wait_is_read_from_the_headers(headers: dict[str, str], wait: timedelta | None) -> None:
    assert retry_after(headers, NOW) == wait


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ms-retry-after-ms"]),
        st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str),
    )
)
def test_no_header_text_makes_it_fail_or_go_back_in_time(headers: dict[str, str]) -> None:
    wait = retry_after(headers, NOW)
    assert wait is None or wait >= timedelta(0)
