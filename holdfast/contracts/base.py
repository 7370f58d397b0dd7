"""One base for every contract: frozen, closed to unknown fields."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """A value that crosses a process boundary.

    Frozen, because a workflow's state may only change through its own reducers. Closed to unknown fields, because a
    misspelt field that is silently dropped is a lost instruction. Silent about values in its errors, because they reach
    logs and may be anybody's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)
