"""Calls that wait for a provider's batch: what the requests, the batches' run and the activities tell each other."""

from datetime import timedelta

from pydantic import AwareDatetime, Field

from holdfast.contracts.base import Contract
from holdfast.contracts.steps import Generated


class Enqueued(Contract):
    """A call is in line for a batch, or was answered before."""

    attempt_id: str
    tries: int = 1
    """Calls of the deployment for this turn, this one included."""
    reply: Generated | None = None
    """The recorded reply, if there is nothing left to wait for."""


class BatchNews(Contract):
    """What a request is told of one of its calls: that it was sent, or how it ended."""

    attempt_id: str
    sent_at: AwareDatetime | None = None
    """When the batch was handed over; then it is all there is to tell."""
    reply: Generated | None = None
    outcome: str = ""
    """How the call failed, if it did."""
    reason: str = ""
    """Why, in one line without request text."""
    again: bool = False
    """Whether the same deployment may be asked again."""


class BatchRun(Contract):
    """The one argument of `BatchWorkflow`: the batches of one deployment."""

    deployment: str
    collect: timedelta
    """How long calls are gathered before they are sent together."""
    poll: timedelta
    """Longest time between two looks at what was sent."""
    heartbeat: timedelta
    """Silence after which the worker that sends or collects is taken for dead."""


class BatchStand(Contract):
    """How many calls of a deployment are where, after a look."""

    queued: int = Field(default=0, ge=0)
    """In line for the next batch."""
    under_way: int = Field(default=0, ge=0)
    """In a batch, or in one that may have been sent."""
    wait: timedelta | None = None
    """How long the provider asked not to be sent another batch."""
