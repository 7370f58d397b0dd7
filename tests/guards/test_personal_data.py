"""What counts as personal data, what does not, and that finding it needs no network."""

import socket
import threading
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.guards import Kind, PersonalDataDetector, Span

_DETECTOR = PersonalDataDetector()


def found(text: str) -> list[tuple[Kind, str]]:
    """Kinds and texts of what the detector finds."""
    return [(span.kind, text[span.start : span.end]) for span in _DETECTOR.detect(text)]


def with_luhn_digit(digits: str) -> str:
    """The digits with the check digit that makes them valid, by trying all ten (independent of the formula)."""
    for check in "0123456789":
        total = 0
        for position, digit in enumerate(reversed(digits + check)):
            value = int(digit) * (1 + position % 2)
            total += value // 10 + value % 10
        if total % 10 == 0:
            return digits + check
    raise AssertionError("One of ten digits always fits.")


@pytest.mark.parametrize(
    "address",
    [
        "jo@example.com",
        "first.last+tag@mail.example.co.uk",
        "o'neill@example.org",
        "a@b.io",
        "user@intranet.corp",
        "用户@例子.公司",
        "jürgen@münchen.de",
        "jo@xn--mnchen-3ya.xn--p1ai",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "Write to <{}>.", "mailto:{}?subject=x", "({}), please", "“{}”"])
def test_an_email_address_is_found_whole(address: str, sentence: str) -> None:
    assert found(sentence.format(address)) == [("EMAIL", address)]


@pytest.mark.parametrize(
    "text", ["npm i lodash@4.17.21", "@app.get", "meet @ 5", "a@b", "@@@", "x@.com", "user.@example.com"]
)
def test_an_at_sign_alone_is_no_email_address(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "3782 822463 10005",
        "378282246310005",
        "30569309025904",
        "5018 0000 0009",
        "6304000000000000000",
        "2223003122003222",
        "213112345678904",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "card {}, exp 12/27", "my card is {} 12/27", "卡号{}。", "number:{}"])
def test_a_card_number_is_found_with_any_usual_spacing(number: str, sentence: str) -> None:
    assert ("CARD", number) in found(sentence.format(number))


@given(st.from_regex(r"[3-9][0-9]{10,17}", fullmatch=True).filter(lambda digits: len(set(digits)) > 2))
@settings(deadline=None)
def test_every_number_of_12_to_19_digits_with_a_luhn_digit_is_a_card(digits: str) -> None:
    number = with_luhn_digit(digits)
    assert found(f"pay with {number} now") == [("CARD", number)]


@given(st.from_regex(r"[3-9][0-9]{14,17}", fullmatch=True), st.integers(1, 9))
@settings(deadline=None)
def test_a_number_with_another_check_digit_is_no_card(digits: str, shift: int) -> None:
    right = with_luhn_digit(digits)
    wrong = right[:-1] + str((int(right[-1]) + shift) % 10)
    assert [kind for kind, _ in found(wrong)] == []


@pytest.mark.parametrize("number", ["1763716200000", "20261121093000", "000000000000", "192.168.100.200"])
def test_timestamps_and_zeros_are_no_cards(number: str) -> None:
    assert "CARD" not in [kind for kind, _ in found(f"at {number} it stopped")]


@pytest.mark.parametrize(
    "iban",
    [
        "GB29NWBK60161331926819",
        "GB29 NWBK 6016 1331 9268 19",
        "gb29nwbk60161331926819",
        "DE89 3704 0044 0532 0130 00",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "FR14-2004-1010-0505-0001-3M02-606",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "IBAN:{} please", "from {} to other", "{}, 2 days ago", "{}です"])
def test_an_iban_is_found_whole(iban: str, sentence: str) -> None:
    assert found(sentence.format(iban)) == [("IBAN", iban)]


@pytest.mark.parametrize(
    "text",
    ["GB28NWBK60161331926819", "GB29NWBK6016133192681", "ZZ29NWBK60161331926819", "IL-17 in colon tissues or MLN were"],
)
def test_a_wrong_check_digit_length_or_country_is_no_iban(text: str) -> None:
    assert "IBAN" not in [kind for kind, _ in found(text)]


@pytest.mark.parametrize(
    "number",
    [
        "+44 7700 921916",
        "+41 (0)38 549 02 90",
        "+1-604-696-5272x565",
        "(212) 555-0143",
        "212-555-0143",
        "212.555.0143",
        "01.84.17.61.18",
        "0496 46 46 70",
        "9472 7916",
        "0961-7596216",
        "020 7946 0958",
        "030/1234567",
        "2125550143",
        "07700921916",
        "9876543210",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "We are at {}, always.", "Kim ({})", "电话{}。"])
def test_a_telephone_number_is_found_by_its_layout_or_number_plan(number: str, sentence: str) -> None:
    assert found(sentence.format(number)) == [("PHONE", number)]


@pytest.mark.parametrize("sentence", ["call {}", "Phone: {}", "my mobile is {}", "tél. {}", "{} (office)", "{}-Fax"])
def test_a_plain_number_is_a_telephone_number_when_a_word_says_so(sentence: str) -> None:
    assert found(sentence.format("5550143")) == [("PHONE", "5550143")]


@pytest.mark.parametrize(
    "text",
    [
        "on 2026-11-21 and 21.11.2026 and 11/21/2026",
        "at 2026-11-21T10:30:00.123456Z or 2026-11-21 10:30:00",
        "from 2019 to 2020, 2019-2020, 2019 2020 2021",
        "5, 42, 1234 and 123456",
        "population 8 336 817 and 12.345.678",
        "it cost $1250000 or 1250000 EUR, 20 000 000 rupees",
        "pi is 3.14159265358979 and e is 2.718281828",
        "server 192.168.100.200 answered",
        "order 4829384756 and invoice no. 20240001234",
        '{"id": 2125550143, "timestamp": 1763716200, "orderId": "2125550143"}',
        "see https://example.com/items/2125550143 for it",
        "550e8400-e29b-41d4-a716-446655440000",
        "pages 2329-2335 and ISBN 978-3-16-148410-0",
        "HR = 1.57 (1.05-2.26)",
        "row 2    0    0    0    0    10   10   10",
        "1 2 3 4 5 6 7 8 9",
        "10 20 30 40 50",
        "commit 1234567 of build 20261121",
        "12345678kg",
    ],
)
def test_dates_amounts_and_other_numbers_are_no_telephone_numbers(text: str) -> None:
    assert found(text) == []


def test_a_telephone_number_beside_a_card_is_still_found() -> None:
    text = "4111 1111 1111 1111 212-555-0143"
    assert found(text) == [("CARD", "4111 1111 1111 1111"), ("PHONE", "212-555-0143")]


def test_numbers_in_a_row_are_found_one_by_one() -> None:
    assert found("212-555-0143 212-555-0199") == [("PHONE", "212-555-0143"), ("PHONE", "212-555-0199")]
    assert found("020 7946 0958 020 7946 0959") == [("PHONE", "020 7946 0958"), ("PHONE", "020 7946 0959")]


@given(st.text(st.sampled_from("0123456789 -.()+/@abGB:,\n"), max_size=80))
@settings(deadline=None, max_examples=300)
def test_spans_never_overlap_and_lie_in_the_text(text: str) -> None:
    spans = _DETECTOR.detect(text)
    position = 0
    for span in spans:
        assert position <= span.start < span.end <= len(text)
        position = span.end


def test_a_detector_is_built_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("The detector tried to reach the network.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert PersonalDataDetector().detect("jo@example.com") == (Span(0, 14, "EMAIL"),)


def test_building_and_detecting_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        PersonalDataDetector().detect("GB29NWBK60161331926819 jo@example.com")
    assert caplog.records == []


def test_many_threads_share_one_detector_that_is_built_once() -> None:
    detector, results = PersonalDataDetector(), []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        results.append(detector.detect("call 0496 46 46 70"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(Span(5, 18, "PHONE"),)] * 8
