"""The limits of a request as somebody chooses them: any of the fields of `Limits`, each with its bounds and its words.

An agent's file and the body of a request read them from different texts, and agree on everything else.
"""

import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

from holdfast.contracts import Limits


def chosen(name: str, **more: Any) -> Any:
    """The field of a limit that may be left out.

    Args:
        name: Of a field of `Limits`, whose bounds and description it takes.
        more: What else `pydantic.Field` should know.
    """
    limit = Limits.model_fields[name]
    bounds = {key: value for bound in limit.metadata for key, value in dataclasses.asdict(bound).items()}
    return Field(default=None, description=limit.description, **bounds, **more)


class ChosenLimits(BaseModel):
    """Limits of which any may be left out; a subclass says how it reads money and spans of time."""

    tokens: int | None = chosen("tokens")
    cost_usd: Decimal | None = chosen("cost_usd")
    output_tokens: int | None = chosen("output_tokens")
    attempts: int | None = chosen("attempts")
    repairs: int | None = chosen("repairs")
    iterations: int | None = chosen("iterations")
    tool_calls: int | None = chosen("tool_calls")
    calls_at_once: int | None = chosen("calls_at_once")
    repetitions: int | None = chosen("repetitions")
    deadline: timedelta | None = chosen("deadline")
