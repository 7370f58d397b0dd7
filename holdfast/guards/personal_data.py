"""Finds e-mail addresses, IBANs, payment cards and telephone numbers in a text.

Names and postal addresses are not looked for: finding them takes a language model that Holdfast does not ship.
"""

import threading
from collections.abc import Callable

from holdfast.guards.email_addresses import find_email_addresses
from holdfast.guards.ibans import find_ibans
from holdfast.guards.payment_cards import find_payment_cards
from holdfast.guards.phone_numbers import find_phone_numbers
from holdfast.guards.spans import Kind, Span, without_overlaps

_CHECKED: tuple[Kind, ...] = ("EMAIL", "IBAN", "CARD")
"""Kinds whose form proves them. They are found first and blanked, so that a telephone number beside one is seen."""


class PersonalDataDetector:
    """Detects the four kinds. One detector serves any number of threads; its analyzer is built once, on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._analyze: Callable[[str, tuple[Kind, ...]], list[Span]] | None = None

    def warm_up(self) -> None:
        """Build the analyzer now, which takes seconds, instead of during the first request."""
        self._analyzer()

    def detect(self, text: str) -> tuple[Span, ...]:
        """Find personal data.

        Args:
            text: A normalised text.

        Returns:
            Spans that do not overlap, in the order of the text.
        """
        analyze = self._analyzer()
        checked = without_overlaps(analyze(text, _CHECKED))
        phones = analyze(_blanked(text, checked), ("PHONE",))
        return tuple(without_overlaps([*checked, *phones]))

    def _analyzer(self) -> Callable[[str, tuple[Kind, ...]], list[Span]]:
        if self._analyze is None:
            with self._lock:
                if self._analyze is None:
                    # Imported here because presidio brings in spaCy: seconds that a command line should not pay.
                    from holdfast.guards.presidio_engine import build_analyzer

                    self._analyze = build_analyzer(
                        {
                            "EMAIL": find_email_addresses,
                            "IBAN": find_ibans,
                            "CARD": find_payment_cards,
                            "PHONE": find_phone_numbers,
                        }
                    )
        return self._analyze


def _blanked(text: str, spans: list[Span]) -> str:
    """The text with line feeds over the spans: same offsets, and no finder looks across a line feed."""
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += [text[position : span.start], "\n" * (span.end - span.start)]
        position = span.end
    return "".join([*pieces, text[position:]])
