"""The gateway's remedies as commands: what it says of calls and headers, in the words of somebody at a command line."""

from collections.abc import Callable

from cli.output import Problem

_NO_REQUEST = "urn:holdfast:problem:no-such-request"


def in_commands(problem: Problem, request_id: str, command: Callable[..., str]) -> Problem:
    """The same problem, with the request it is about and the command that helps.

    Args:
        problem: As the gateway told it.
        request_id: The request that the command line named.
        command: Writes a command that reaches the same gateway; `user` is who is to act.
    """
    if problem.members.get("type") == _NO_REQUEST:
        remedy = f"`{command('requests', 'list')}` lists yours."
        return Problem(f"There is no request {request_id[:80]!r}.", remedy=remedy, members=problem.members)
    show, see = (command(verb, "show", request_id) for verb in ("requests", "approvals"))
    people = problem.members.get("people")
    match problem.members.get("code"):
        case "not_open":
            problem.remedy = f"`{command('approvals', 'list')}` shows what is open, `{show}` how this one stands."
        case "already_decided":
            problem.remedy = f"Nothing needs to be done; `{show}` shows its outcome."
        case "other_content" | "too_late":
            problem.remedy = f"Read what waits now: `{see}`."
        case "not_named" | "own_request" if isinstance(people, list) and people:
            as_other = command("approvals", "show", request_id, user=str(people[0]))
            problem.remedy = f"{problem.remedy} For example: `{as_other}`."
    return problem
