"""The rate of each deployment's task queue, kept by the server itself: what is over it waits durably, in order.

The limit belongs to the queue, not to a worker: it holds however many workers there are, and stays when all are gone.
"""

from collections.abc import Mapping
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client
from temporalio.service import RPCError

from holdfast.errors import Unavailable
from workflows.steps import generate_queue

CALL_TIMEOUT = timedelta(seconds=10)


async def set_queue_limits(client: Client, task_queue: str, requests_per_minute: Mapping[str, int | None]) -> None:
    """Give every deployment's queue the rate its provider admits, or none.

    Args:
        client: Of the engine.
        task_queue: The installation's main queue.
        requests_per_minute: By deployment; `None` removes a limit.

    Raises:
        Unavailable: The engine does not answer.
    """
    for deployment, limit in requests_per_minute.items():
        rate = None if limit is None else RateLimit(requests_per_second=limit / 60)
        update = UpdateTaskQueueConfigRequest.RateLimitUpdate(rate_limit=rate, reason="requests_per_minute")
        request = UpdateTaskQueueConfigRequest(
            namespace=client.namespace,
            identity=client.identity,
            task_queue=generate_queue(deployment, task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            update_queue_rate_limit=update,
        )
        try:
            await client.workflow_service.update_task_queue_config(request, timeout=CALL_TIMEOUT)
        except RPCError as error:
            raise _unavailable(deployment, error) from None


async def queue_limit(client: Client, task_queue: str, deployment: str) -> float | None:
    """The rate in force for a deployment, in requests a minute; `None` when its queue has none.

    Raises:
        Unavailable: The engine does not answer.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=generate_queue(deployment, task_queue)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        report_config=True,
    )
    try:
        reply = await client.workflow_service.describe_task_queue(request, timeout=CALL_TIMEOUT)
    except RPCError as error:
        raise _unavailable(deployment, error) from None
    limit = reply.config.queue_rate_limit
    return limit.rate_limit.requests_per_second * 60 if limit.HasField("rate_limit") else None


def _unavailable(deployment: str, error: RPCError) -> Unavailable:
    return Unavailable(
        f"The engine did not take the rate limit of deployment {deployment!r} ({error.status.name.lower()}). "
        "Check that the Temporal server answers: `holdfast doctor`."
    )
