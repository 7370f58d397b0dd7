"""Makes an input safe to show to models, logs and people: normalise, refuse, mask."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.contracts import Conversation, Guards, Turn
from holdfast.guards.normalise import normalise
from holdfast.guards.personal_data import PersonalDataDetector
from holdfast.guards.placeholders import mask_all
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
        return self.sanitize_all(text, Conversation(), guards)[0]

    def sanitize_all(self, text: str, conversation: Conversation, guards: Guards) -> tuple[SanitizedText, Conversation]:
        """`sanitize` for a question and the conversation around it: a value has one placeholder in all of it.

        The arguments of earlier tool calls are masked but not normalised, because another spelling could break their
        JSON. The tools on offer are the client's code and are left as they are.

        Returns:
            The question, with everything that was found anywhere, and the conversation.
        """
        turns = (*conversation.turns, *conversation.continuation)
        arguments = [call.arguments for turn in turns for call in turn.tool_calls]
        spoken = [text, *(turn.content for turn in turns)]
        too_large = refusal_of_size("\n".join([*spoken, *arguments]), self._max_input_bytes)
        if too_large is not None:
            return SanitizedText(masked="", refusal=too_large), Conversation()
        spoken = [normalise(said) for said in spoken]
        # Only a question must say something: a turn that calls a tool need not.
        judged = [spoken[0], *(said for said in [*spoken[1:], *arguments] if said.strip())]
        refusals = (refusal_of_content(said, guards.refuse) for said in judged)
        refusal = next((found for found in refusals if found is not None), None)
        texts = [*spoken, *arguments]
        mapping: dict[str, str] = {}
        counts: dict[str, int] = {}
        if guards.mask:
            masked, mapping, counts = mask_all(texts, [self._detector.detect(said) for said in texts])
            texts = list(masked)
        question = SanitizedText(masked=texts[0], mapping=mapping, counts=counts, refusal=refusal)
        return question, _with_texts(conversation, iter(texts[1 : len(spoken)]), iter(texts[len(spoken) :]))

    def mask_more(
        self, texts: Sequence[str], known: Mapping[str, str], beside: Iterable[str] = ()
    ) -> tuple[tuple[str, ...], dict[str, str], dict[str, int]]:
        """Normalise and mask what was added to a request whose input is masked already.

        Args:
            texts: What came, such as results of tools.
            known: What the request's placeholders stand for; a value that is among them gets the same one.
            beside: Other texts of the request, whose placeholders are not given out.

        Returns:
            The masked texts, the mapping with what was added, and how many values of each kind were added.
        """
        spoken = [normalise(text) for text in texts]
        return mask_all(spoken, [self._detector.detect(said) for said in spoken], known=known, beside=beside)


def _with_texts(conversation: Conversation, contents: Iterator[str], arguments: Iterator[str]) -> Conversation:
    def rewritten(turn: Turn) -> Turn:
        calls = tuple(call.model_copy(update={"arguments": next(arguments)}) for call in turn.tool_calls)
        return turn.model_copy(update={"content": next(contents), "tool_calls": calls})

    turns = tuple(rewritten(turn) for turn in conversation.turns)
    continuation = tuple(rewritten(turn) for turn in conversation.continuation)
    return conversation.model_copy(update={"turns": turns, "continuation": continuation})
