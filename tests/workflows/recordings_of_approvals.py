"""Recordings of questions to several people, who vote, edit and escalate, for `record_histories`."""

from collections.abc import Awaitable, Callable

from holdfast.contracts import Decision
from tests.house import House
from tests.workflows.recorded import EDIT
from tests.workflows.recording import decide, ended, ends, held

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
_JOINT = '[approval]\napprovers = ["ann", "bob", "cid"]\nquorum = 2\n'
_BOSS = '[[approval.escalation]]\napprovers = ["boss", "chief"]\nwithin = "%s"\n'
APPROVAL_AGENTS = {
    "joint": _PLAIN + _JOINT + _BOSS % "4h",
    "chain": _PLAIN + '[approval]\napprovers = ["ann"]\nwithin = "3s"\nreminders = ["2s"]\n' + _BOSS % "1s",
    "wary": _PLAIN + '[approval]\napprovers = ["ann"]\nwhen = "size(output) > 3"\n',
    "easy": _PLAIN + '[approval]\napprovers = ["ann"]\nwhen = "size(output) > 30000"\n',
}


async def quorum(house: House) -> str:
    """One person by update, one by signal, and one who is not asked any more."""
    request_id = await held(house, "joint")
    content = (await house.waiting(request_id))["content_sha256"]
    await decide(house, request_id, "approve", by="ann", reason="fine")
    said = {"decision": "approve", "actor": "bob", "content_sha256": content}
    await house.client.get_workflow_handle(request_id).signal("decide", Decision.model_validate(said))
    return await ends(house, request_id, "completed")


async def quorum_edit(house: House) -> str:
    request_id = await held(house, "joint")
    await decide(house, request_id, "approve", by="ann")
    await decide(house, request_id, "edit", by="bob", payload=f"Better {EDIT}.")
    content = (await house.show(request_id, wait=0))["approval"]["content_sha256"]
    await decide(house, request_id, "approve", by="cid", content=content)
    return await ends(house, request_id, "completed")


async def quorum_reject(house: House) -> str:
    request_id = await held(house, "joint")
    await decide(house, request_id, "approve", by="ann")
    await decide(house, request_id, "reject", by="bob", reason="not yet")
    return await ends(house, request_id, "rejected")


async def escalated(house: House) -> str:
    """Somebody hands the question over, and a vote goes along."""
    request_id = await held(house, "joint")
    await decide(house, request_id, "approve", by="ann")
    await decide(house, request_id, "escalate", by="bob", reason="not mine")
    await decide(house, request_id, "approve", by="boss")
    return await ends(house, request_id, "completed")


async def chain(house: House) -> str:
    """A reminder, an escalation and a default, each at its time."""
    return await ends(house, await held(house, "chain"), "rejected")


async def quorum_cancel(house: House) -> str:
    """The request is cancelled after a vote."""
    request_id = await held(house, "joint")
    await decide(house, request_id, "approve", by="ann")
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def condition(house: House) -> str:
    """A condition has people asked."""
    request_id = await held(house, "wary")
    await decide(house, request_id, "edit", payload=f"Better {EDIT}.")
    return await ends(house, request_id, "completed")


async def condition_unmet(house: House) -> str:
    return await ended(house, "easy", "completed")


APPROVAL_PATHS: tuple[Callable[[House], Awaitable[str]], ...] = (
    quorum,
    quorum_edit,
    quorum_reject,
    quorum_cancel,
    escalated,
    chain,
    condition,
    condition_unmet,
)
