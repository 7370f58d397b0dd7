"""How every process reaches the engine: one data converter, one way to connect.

Gateway, worker and command line must encode payloads alike, so the converter lives beside the workflows that read it.
"""

import ipaddress
from collections.abc import Sequence
from datetime import timedelta

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, Interceptor
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.runtime import Runtime
from temporalio.service import GrpcCompression

from holdfast.errors import Unavailable

CONNECT_TIMEOUT = timedelta(seconds=10)


class CompactPayloadConverter(PydanticPayloadConverter):
    """Leaves fields that nobody set out of the history, which keeps it small."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


class BriefFailureConverter(DefaultFailureConverter):
    """Leaves the stack trace out of failures that are raised on purpose.

    It would tell where our own code makes the message, at a kilobyte for each attempt, with the paths of the worker's
    machine. A bug in workflow code keeps its trace.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Convert as the SDK does, then cut."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, ApplicationError):
            failure.stack_trace = ""


DATA_CONVERTER = DataConverter(
    payload_converter_class=CompactPayloadConverter, failure_converter_class=BriefFailureConverter
)
"""The converter of every client, worker and replayer."""


async def connect_client(
    address: str,
    namespace: str,
    *,
    interceptors: Sequence[Interceptor] = (),
    runtime: Runtime | None = None,
) -> Client:
    """Connect to the engine.

    Args:
        address: Host and port of the Temporal frontend.
        namespace: Temporal namespace.
        interceptors: For example `tracing_interceptors`.
        runtime: Carries the SDK's own metrics; the default runtime exports none.

    Raises:
        Unavailable: Nothing answers at the address.
    """
    try:
        return await Client.connect(
            address,
            namespace=namespace,
            data_converter=DATA_CONVERTER,
            interceptors=list(interceptors),
            runtime=runtime,
            connect_timeout=CONNECT_TIMEOUT,
            # On loopback compression only costs time: 54-62 requests/s without it were the best measured.
            grpc_compression=GrpcCompression.NONE if is_loopback(address) else GrpcCompression.GZIP,
        )
    except (RuntimeError, OSError):  # the SDK's core reports every failure to connect as RuntimeError
        raise Unavailable(
            f"No Temporal server answers at {address!r}. Start one with `holdfast dev`, "
            "or set HOLDFAST_ENGINE__ADDRESS to one that runs."
        ) from None


def tracing_interceptors(otlp_endpoint: str) -> list[TracingInterceptor]:
    """What hands a client's spans on to workflows and activities; the workers of the client use it too.

    On the client it is the outermost interceptor, so that spans see the errors that histories see and no others.

    Args:
        otlp_endpoint: Where spans are exported; empty when they are not, and then there is no interceptor.
    """
    return [TracingInterceptor()] if otlp_endpoint else []


def is_loopback(address: str) -> bool:
    """Whether `host:port` names this machine."""
    host = address.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
