"""`route`: which deployment to call now."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from temporalio import activity

from holdfast.configuration import Deployment
from holdfast.contracts import Routed, RouteInput
from holdfast.ledger import Ledger


class Route:
    """Takes the agent's list in order and skips what is marked down."""

    def __init__(self, deployments: Mapping[str, Deployment], ledger: Ledger, heartbeat_timeout: timedelta) -> None:
        self._deployments = deployments
        self._ledger = ledger
        self._heartbeat_timeout = heartbeat_timeout

    @activity.defn(name="route")
    async def route(self, given: RouteInput) -> Routed:
        """Choose; when all candidates are down, the first to recover is tried rather than nobody."""
        down = await self._ledger.health.down(datetime.now(UTC))
        skipped: list[str] = []
        candidates: list[str] = []
        for name in given.deployments:
            deployment = self._deployments.get(name)
            if name in given.excluded:
                skipped.append(f"{name} failed this request")
            elif deployment is None or not deployment.enabled:
                skipped.append(f"{name} is not enabled")
            elif name in down:
                skipped.append(f"{name} is down until {down[name].until:%H:%M:%S} UTC ({down[name].reason})")
                candidates.append(name)
            else:
                return self._routed(name, skipped)
        if candidates:
            return self._routed(min(candidates, key=lambda name: down[name].until), skipped)
        return Routed(reason=f"no deployment is left: {'; '.join(skipped)}")

    def _routed(self, name: str, skipped: list[str]) -> Routed:
        reason = f"{name}; skipped: {'; '.join(skipped)}" if skipped else f"{name}, the first choice"
        return Routed(
            deployment=name,
            reason=reason,
            call_timeout=self._deployments[name].timeouts.total + timedelta(seconds=10),
            heartbeat_timeout=self._heartbeat_timeout,
        )
