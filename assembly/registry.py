"""Which steps there are, and of what each is made: the activities and workflows that the queues serve.

A new step is registered here and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client

from activities.batch import Batch
from activities.brief import Brief
from activities.deliver import Deliver
from activities.extend import Extend
from activities.generate import Generate
from activities.ingest import Ingest
from activities.note import Note
from activities.notify import Notify
from activities.recall import Recall
from activities.retrieve import Retrieve
from activities.route import Route
from activities.sanitize import Sanitize
from activities.tools import Tools
from activities.validate import Validate
from assembly.services import Services
from holdfast.configuration import Configuration
from holdfast.delegation import Delegation
from holdfast.settings import Settings
from workflows.batches import BatchWorkflow
from workflows.ingest import IngestWorkflow
from workflows.notifications import NotificationWorkflow
from workflows.pinned import PinnedRequestWorkflow
from workflows.request import RequestWorkflow

Activities = Sequence[Callable[..., Any]]


@dataclass(frozen=True)
class Registry:
    """What each kind of queue serves."""

    requests: Activities
    ingestion: Activities
    notifications: Activities
    generation: Activities
    """For the queue of any deployment."""


def workflow_types(*, pinned: bool) -> list[type]:
    """The workflows, with requests pinned to the version they began with or not."""
    return [
        PinnedRequestWorkflow if pinned else RequestWorkflow,
        IngestWorkflow,
        BatchWorkflow,
        NotificationWorkflow,
    ]


def build_activities(client: Client, services: Services, settings: Settings, configuration: Configuration) -> Registry:
    """Build every step once."""
    ledger = services.ledger
    generate = Generate(services.caller, services.metrics)
    batch = Batch(services.batches, client, settings.engine, settings.batch)
    tools = Tools(services.equipment)
    notify = Notify(services.notifier)
    return Registry(
        requests=[
            Sanitize(services.sanitizer, ledger).sanitize,
            Recall(ledger, settings.ledger.recall_for).recall,
            Retrieve(services.knowledge, ledger).retrieve,
            Route(services.router, configuration.deployments, settings.engine.heartbeat_timeout).route,
            generate.generate,
            batch.enqueue,
            batch.submit,
            batch.collect,
            Validate(services.validator, ledger).validate,
            Extend(ledger).extend,
            tools.equip,
            tools.vet,
            tools.call_tool,
            tools.transcribe,
            Brief(Delegation(configuration.agents, ledger)).brief,
            Note(ledger, services.notifier).note,
            Deliver(ledger, services.relay, services.metrics, services.notifier).deliver,
        ],
        ingestion=[Ingest(services.knowledge, ledger).ingest],
        notifications=[notify.notify, notify.bury],
        generation=[generate.generate],
    )
