"""A new version of the worker is deployed while requests wait for people: each ends on the code that it began with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import RoutingConfigUpdateState
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

import worker
from tests.house import AGENTS, PATIENCE_SECONDS, House, open_house

DEPLOYMENT = "holdfast-test"


@pytest.fixture
async def house(temporal_client: Client, tmp_path: Path) -> AsyncIterator[House]:
    agents = {name: AGENTS[name] for name in ("held", "plain")}
    versioned = {"deployment": DEPLOYMENT, "version": "one"}
    async with open_house(tmp_path, temporal_client, agents=agents, engine=versioned) as opened:
        await make_current(opened, "one")
        yield opened


@asynccontextmanager
async def another_version(house: House, version: str) -> AsyncIterator[None]:
    """Workers of another version beside those of the house."""
    settings = house.settings.model_copy(
        update={"engine": house.settings.engine.model_copy(update={"version": version})}
    )
    workers = worker.build_workers(house.client, house.services, settings, house.configuration)
    serving = asyncio.create_task(worker.serve_workers(workers))
    try:
        await make_current(house, version)
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def make_current(house: House, version: str) -> None:
    """What `temporal worker deployment set-current-version` does, once the server has seen the version poll."""
    service, namespace = house.client.workflow_service, house.client.namespace
    wanted = WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=version)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                seen = await service.describe_worker_deployment_version(
                    DescribeWorkerDeploymentVersionRequest(namespace=namespace, deployment_version=wanted)
                )
                queues = {info.name for info in seen.worker_deployment_version_info.task_queue_infos}
                if house.settings.engine.task_queue in queues:
                    break
            except RPCError:
                pass
            await asyncio.sleep(0.05)
        await service.set_worker_deployment_current_version(
            SetWorkerDeploymentCurrentVersionRequest(
                namespace=namespace, deployment_name=DEPLOYMENT, build_id=version, ignore_missing_task_queues=True
            )
        )
        # The queues hear of it a little later.
        while True:
            seen_by_queues = await service.describe_worker_deployment(
                DescribeWorkerDeploymentRequest(namespace=namespace, deployment_name=DEPLOYMENT)
            )
            state = seen_by_queues.worker_deployment_info.routing_config_update_state
            if state != RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_IN_PROGRESS:
                break
            await asyncio.sleep(0.05)


async def version_of(house: House, request_id: str) -> str:
    """The version that a request's last workflow task ran on."""
    description = await house.client.get_workflow_handle(request_id).describe()
    versioning = description.raw_description.workflow_execution_info.versioning_info
    return versioning.deployment_version.build_id


async def test_requests_that_wait_end_on_the_version_they_began_with_and_new_ones_get_the_new_one(house: House) -> None:
    before = await house.ask("held", "Asked before the deployment.")
    assert before["status"] == "waiting"
    async with another_version(house, "two"):
        after = await house.ask("held", "Asked after it.")
        for request, version in ((before, "one"), (after, "two")):
            decided = await house.decide(request["id"], "approve", by="ann")
            assert decided.status_code == 200, decided.text
            assert (await house.show(request["id"]))["status"] == "completed"
            assert await version_of(house, request["id"]) == version
