"""Whose money a request spends, and what happens when it is used up."""

from enum import StrEnum

from pydantic import Field

from holdfast.contracts.base import Contract


class AtLimit(StrEnum):
    """What a budget does with a call that would pass it."""

    BLOCK = "block"
    """The request ends as `denied`."""
    DEGRADE = "degrade"
    """A cheaper deployment is tried."""
    QUEUE = "queue"
    """The request waits until the budget's next period."""
    ASK = "ask"
    """A person may let the request go past."""


class SpendScopes(Contract):
    """The scopes whose budgets a call counts against, beside the request's own limits."""

    tenant: str = Field(min_length=1, max_length=64)
    user: str = Field(min_length=1, max_length=128)
    session: str | None = Field(default=None, max_length=128)
