"""`/healthz`: the process lives. `/readyz`: requests are accepted and worked on."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from gateway.context import GatewayOf
from gateway.problems import Problem
from holdfast.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Response:
    """Whether the process answers; asks nobody else."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(gateway: GatewayOf) -> Response:
    """Whether engine, ledger and a worker are there; 503 names what is missing."""
    missing = await gateway.engine.missing()
    try:
        await gateway.ledger.requests.list("", limit=1)
    except Unavailable:
        missing.append("ledger: the database does not answer; see `ledger.url`")
    if gateway.draining.is_set():
        missing.append("gateway: it is about to stop")
    if missing:
        raise Problem(
            503,
            "not-ready",
            "Not ready",
            f"Requests cannot be served: {'; '.join(missing)}.",
            remedy="Start what is missing; `holdfast doctor` checks every part.",
            headers={"Retry-After": "1"},
            extra={"missing": missing},
        )
    return JSONResponse({"status": "ready"})
