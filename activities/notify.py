"""`notify` and `bury`: one attempt to tell somebody, and the end of a notification that nobody will try again."""

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from holdfast.contracts import Notified, NotifyInput
from holdfast.notify import Later, Notifier


class Notify:
    """Sends what is in the ledger."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    @activity.defn(name="notify")
    async def notify(self, given: NotifyInput) -> Notified:
        """Try once; the engine tries again when this asks for it.

        Raises:
            ApplicationError: It was not accepted; with the time of the next attempt.
        """
        info = activity.info()
        # By the engine's clock, so that a restart of the worker does not give the target another day.
        waited = info.current_attempt_scheduled_time - info.scheduled_time
        result = await self._notifier.attempt(given.tenant, given.delivery, waited)
        if isinstance(result, Later):
            raise ApplicationError(
                result.problem,
                type="NotAccepted",
                next_retry_delay=result.wait,
                # A receiver that is away is not a fault of ours.
                category=ApplicationErrorCategory.BENIGN,
            )
        return result

    @activity.defn(name="bury")
    async def bury(self, given: NotifyInput) -> Notified:
        """Put it on the dead-letter list."""
        problem = "the attempts failed in the worker; its log says why"
        await self._notifier.bury(given.tenant, given.delivery, problem)
        return Notified(state="dead", detail=problem)
