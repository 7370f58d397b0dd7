"""The repair ladder: a reply is taken as it is, mended deterministically, or sent back with what is wrong.

Which rung settled a reply is part of the verdict, because a change in that share is the first sign that a model
changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from holdfast.contracts import Citation, FinishReason, Passage, Violation
from holdfast.validation.citations import cite, cited_markers
from holdfast.validation.json_reply import read_json
from holdfast.validation.schema import compile_schema, flaw, known_pointer

MAX_VIOLATIONS = 10
MAX_MESSAGE_CHARACTERS = 120
MAX_PATH_CHARACTERS = 200

_STOPPED = {
    FinishReason.LENGTH: "The reply was cut off at the output limit; send a shorter one.",
    FinishReason.CONTENT_FILTER: "The provider's content filter stopped the reply.",
    FinishReason.REFUSAL: "The model refused to answer.",
    FinishReason.TOOL_CALLS: "The model asked for a tool instead of answering; answer without tools.",
}


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    ok: bool
    text: str
    """The text to deliver when `ok`, else the reply as it came."""
    rung: Literal["as_is", "repaired", "invalid"]
    violations: tuple[Violation, ...] = ()
    citations: tuple[Citation, ...] = ()


class Validator:
    """Checks replies. Holds no state, so threads may share one."""

    def check(
        self,
        output: str,
        *,
        finish_reason: FinishReason,
        output_schema: dict[str, Any] | None,
        passages: Sequence[Passage] | None,
        chat: bool = False,
    ) -> Verdict:
        """Check one reply.

        A reply that did not end by itself is invalid whatever it says: mending a cut-off reply would invent its end.

        Args:
            output: The reply.
            finish_reason: Why the model stopped.
            output_schema: JSON Schema of the reply; `None` for free text.
            passages: What the model was shown, `[1]` first; only free text is searched for citations, since in JSON a
                bracketed number is data. `None` means this agent does not retrieve, so bracketed numbers mean nothing;
                empty means nothing was found, so a marker cites what does not exist.
            chat: Whether a cut-off text, or a call of the client's tools, is a reply, as chat clients expect.

        Returns:
            The verdict, with at most `MAX_VIOLATIONS` violations, none of which repeats a long piece of the reply.

        Raises:
            ValueError: The schema is not usable; `check_schema` tells why.
        """
        if chat and finish_reason is FinishReason.TOOL_CALLS:
            return Verdict(ok=True, text=output, rung="as_is")
        if chat and finish_reason is FinishReason.LENGTH and output_schema is None and output.strip():
            return Verdict(ok=True, text=output.strip(), rung="as_is")
        if finish_reason in _STOPPED:
            return _invalid(output, [Violation(path="", message=_STOPPED[finish_reason])])
        if output_schema is None:
            return _check_text(output, passages)
        return _check_json(output, output_schema)


def _check_text(output: str, passages: Sequence[Passage] | None) -> Verdict:
    text = output.strip()
    if not text:
        return _invalid(output, [Violation(path="", message="The reply is empty.")])
    if passages is None:
        return Verdict(ok=True, text=text, rung="as_is")
    markers = cited_markers(text)
    beyond = [marker for marker in markers if not 1 <= marker <= len(passages)]
    if beyond:
        shown = {0: "no passage was given", 1: "one passage was given, [1]"}.get(
            len(passages), f"{len(passages)} passages were given, [1] to [{len(passages)}]"
        )
        return _invalid(output, [Violation(path="", message=f"Marker [{n}] cites nothing: {shown}.") for n in beyond])
    return Verdict(ok=True, text=text, rung="as_is", citations=cite(text, passages))


def _check_json(output: str, schema: dict[str, Any]) -> Verdict:
    validator = compile_schema(schema)
    parsed = read_json(output)
    if isinstance(parsed, Violation):
        return _invalid(output, [parsed])
    errors = list(islice(validator.iter_errors(parsed.value), MAX_VIOLATIONS))
    if errors:
        return _invalid(
            output,
            [
                Violation(path=known_pointer(error.instance_path, schema), message=flaw(error, schema, noun="property"))
                for error in errors
            ],
        )
    return Verdict(ok=True, text=parsed.text, rung="repaired" if parsed.repaired else "as_is")


def _invalid(output: str, violations: list[Violation]) -> Verdict:
    return Verdict(
        ok=False,
        text=output,
        rung="invalid",
        violations=tuple(
            Violation(
                path=_shortened(violation.path, MAX_PATH_CHARACTERS),
                message=_shortened(violation.message, MAX_MESSAGE_CHARACTERS),
            )
            for violation in violations[:MAX_VIOLATIONS]
        ),
    )


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
