"""`route`: which deployment to call now, and why."""

from collections.abc import Mapping
from datetime import timedelta

from temporalio import activity

from holdfast.contracts import Routed, RouteInput
from holdfast.deployments import Deployment
from holdfast.router import Router

GRACE = timedelta(seconds=150)
"""What a worker needs beyond the call itself: a wait for room that is sat out (`holdfast.gate.PATIENCE_ALONE`), and one
for a ledger that is away when the reply is there (`holdfast.calls.BOOKING_PATIENCE`)."""


class Route:
    """Asks the router, and puts the deployment's bounds beside its choice."""

    def __init__(self, router: Router, deployments: Mapping[str, Deployment], heartbeat_timeout: timedelta) -> None:
        self._router = router
        self._deployments = deployments
        self._heartbeat_timeout = heartbeat_timeout

    @activity.defn(name="route")
    async def route(self, given: RouteInput) -> Routed:
        """Choose; without a deployment, the reason says what stood in the way of each."""
        decision = await self._router.route(given)
        if decision.chosen is None:
            return Routed(reason=decision.one_line())
        deployment = self._deployments[decision.chosen.name]
        return Routed(
            deployment=decision.chosen.name,
            reason=decision.one_line(),
            in_process=deployment.in_process,
            call_timeout=deployment.timeouts.total + GRACE,
            heartbeat_timeout=self._heartbeat_timeout,
            batch=deployment.batch and given.request is not None and given.request.batch,
        )
