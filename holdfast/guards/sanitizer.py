"""Makes an input safe to show to models, logs and people: normalise, refuse, mask."""

from dataclasses import dataclass, field

from holdfast.contracts import Guards
from holdfast.guards.normalise import normalise
from holdfast.guards.personal_data import PersonalDataDetector
from holdfast.guards.placeholders import mask
from holdfast.guards.refusal import MAX_INPUT_BYTES, refusal_of_content, refusal_of_size


@dataclass(frozen=True)
class SanitizedText:
    """An input after the guards."""

    masked: str
    """The normalised text with placeholders. Empty when the input was refused for its size."""
    mapping: dict[str, str] = field(default_factory=dict)
    """What each placeholder stands for; keep it apart from the masked text."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many distinct values of each kind were masked."""
    refusal: str | None = None
    """Why the input is refused; `None` when it may go on."""


class Sanitizer:
    """Applies an agent's guards. Synchronous, without I/O, and safe to share between threads.

    Args:
        max_input_bytes: Largest input that is looked at, in bytes of UTF-8.
    """

    def __init__(self, *, max_input_bytes: int = MAX_INPUT_BYTES) -> None:
        self._max_input_bytes = max_input_bytes
        self._detector = PersonalDataDetector()

    def warm_up(self) -> None:
        """Load what the first request would otherwise wait for (seconds)."""
        self._detector.warm_up()

    def sanitize(self, text: str, guards: Guards) -> SanitizedText:
        """Normalise a text, decide whether it is refused, and mask personal data.

        Rules see the text before masking, so a rule may name what masking would hide. A refused text is masked too,
        because it is stored and shown.

        Args:
            text: The input as it came.
            guards: What the agent asks for; its patterns must have passed `check_refusal_patterns`.

        Returns:
            The masked text, its mapping, and the refusal if there is one.
        """
        too_large = refusal_of_size(text, self._max_input_bytes)
        if too_large is not None:
            return SanitizedText(masked="", refusal=too_large)
        normalised = normalise(text)
        refusal = refusal_of_content(normalised, guards.refuse)
        if not guards.mask:
            return SanitizedText(masked=normalised, refusal=refusal)
        masked = mask(normalised, self._detector.detect(normalised))
        return SanitizedText(masked=masked.text, mapping=masked.mapping, counts=masked.counts, refusal=refusal)
