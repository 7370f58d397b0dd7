"""The search attributes of a request, typed. Registered by `temporal-dev/`; never hold text of a request."""

from temporalio.common import SearchAttributeKey

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
