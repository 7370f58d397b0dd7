"""`/metrics`: what this process has measured, for Prometheus.

Without API keys it answers this machine; with keys it wants one. It says nothing about single tenants or requests.
"""

import asyncio

from fastapi import APIRouter, Depends
from starlette.responses import Response

from gateway.context import caller_of
from holdfast.telemetry import METRICS_CONTENT_TYPE, RunningMetrics


def router_of(metrics: RunningMetrics) -> APIRouter:
    """The route that serves a process's metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", dependencies=[Depends(caller_of)])
    async def scrape() -> Response:
        """Everything recorded so far, as Prometheus text."""
        return Response(await asyncio.to_thread(metrics.render), headers={"Content-Type": METRICS_CONTENT_TYPE})

    return router
