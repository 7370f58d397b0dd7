"""The rate of a deployment's queue is the server's, set from the configuration and changed without a restart."""

from temporalio.client import Client

from workflows.queue_limits import queue_limit, set_queue_limits


async def test_a_queues_rate_is_set_changed_and_removed(temporal_client: Client) -> None:
    await set_queue_limits(temporal_client, "rates", {"fast": 600, "free": None})
    assert await queue_limit(temporal_client, "rates", "fast") == 600
    assert await queue_limit(temporal_client, "rates", "free") is None
    await set_queue_limits(temporal_client, "rates", {"fast": 90})
    assert await queue_limit(temporal_client, "rates", "fast") == 90
    await set_queue_limits(temporal_client, "rates", {"fast": None})
    assert await queue_limit(temporal_client, "rates", "fast") is None


async def test_two_installations_have_rates_of_their_own(temporal_client: Client) -> None:
    await set_queue_limits(temporal_client, "one", {"fast": 60})
    assert await queue_limit(temporal_client, "two", "fast") is None
