"""The search attributes and the memo of a request. Attributes are registered by `temporal-dev/`; neither holds text."""

from typing import Any

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from holdfast.contracts import Request, Status

TENANT = SearchAttributeKey.for_keyword("HoldfastTenant")
USER = SearchAttributeKey.for_keyword("HoldfastUser")
AGENT = SearchAttributeKey.for_keyword("HoldfastAgent")
SESSION = SearchAttributeKey.for_keyword("HoldfastSession")
STATUS = SearchAttributeKey.for_keyword("HoldfastStatus")
TIER = SearchAttributeKey.for_keyword("HoldfastTier")
MODEL = SearchAttributeKey.for_keyword("HoldfastModel")
APPROVERS = SearchAttributeKey.for_keyword_list("HoldfastApprovers")
APPROVAL_DEADLINE = SearchAttributeKey.for_datetime("HoldfastApprovalDeadline")
COST_USD = SearchAttributeKey.for_float("HoldfastCostUsd")
TOKENS = SearchAttributeKey.for_int("HoldfastTokens")
VERSION = SearchAttributeKey.for_keyword("HoldfastVersion")

HELD = "held"
"""Memo of a run that can come to wait for a person."""


def found_by(request: Request) -> TypedSearchAttributes:
    """What a run is found by when it starts, whoever starts it."""
    pairs = [
        SearchAttributePair(TENANT, request.tenant),
        SearchAttributePair(USER, request.user),
        SearchAttributePair(AGENT, request.plan.agent),
        SearchAttributePair(VERSION, request.plan.version),
        SearchAttributePair(STATUS, Status.RUNNING.value),
        SearchAttributePair(TIER, request.tier),
    ]
    if request.session:
        pairs.append(SearchAttributePair(SESSION, request.session))
    return TypedSearchAttributes(pairs)


def pinned(request: Request) -> dict[str, Any]:
    """The memo that a run starts with: what it is pinned to, and whether people may be asked."""
    plan = request.plan
    memo: dict[str, Any] = {"agent_version": plan.version, "prompt": plan.instructions.sha256}
    if request.parent:
        memo["parent"] = request.parent
    return memo | {HELD: True} if can_wait(request) else memo


def can_wait(request: Request) -> bool:
    """Whether the run can come to wait for a person: for its answer, past a budget, or for a tool."""
    plan = request.plan
    return plan.approval is not None or plan.budget_approval is not None or plan.toolbox is not None
