"""One piece of a model's reply on its way to the client: the token plane, which no history ever holds."""

from typing import Literal

from pydantic import Field

from holdfast.contracts.base import Contract

StreamKind = Literal["began", "text", "ended", "failed"]
"""`began`: an attempt starts with empty text, and what earlier attempts sent is void. `text`: more of it. `ended`: the
attempt's text is complete. `failed`: the attempt sends no more, and its text is not complete."""


class StreamEvent(Contract):
    """A step forward in the text of one attempt. `attempt` and `offset` give every character one place.

    Build it the ordinary way, also for every delta: validating these five fields takes 1.5 microseconds, which is less
    than `model_construct` needs.
    """

    request_id: str
    attempt: int = Field(ge=1)
    """The attempt's ordinal in the ledger. It grows from call to call, and a greater one fences all lower ones."""
    offset: int = Field(ge=0)
    """Characters (code points) of this attempt's text before `text`: 0 for `began`, the whole length for `ended`."""
    kind: StreamKind
    text: str = ""
    """What is added; empty for every kind but `text`."""

    @property
    def end(self) -> int:
        """Characters of this attempt's text up to and including `text`: the offset from which to go on."""
        return self.offset + len(self.text)
