"""A deployment of the configuration as something to call: its provider, its bounds, and what stands before it."""

from collections.abc import Mapping

from pydantic import SecretStr

from holdfast.deployments import Deployment, resolve_key
from holdfast.gate import Guarded
from holdfast.handlers import load_handler
from holdfast.limits import Scope
from holdfast.preparation import ConnectedDeployment
from holdfast.providers import (
    Anthropic,
    AnthropicBatches,
    BatchProvider,
    Extractive,
    HttpStream,
    OpenAIBatches,
    OpenAICompatible,
    Provider,
    Timeouts,
)
from holdfast.providers.handler import Handler


def connect(
    name: str, deployment: Deployment, client: HttpStream, environment: Mapping[str, str]
) -> ConnectedDeployment:
    """Connect a deployment; nothing is sent yet.

    Args:
        name: Of the deployment.
        deployment: What the configuration says of it.
        client: Shared by all deployments.
        environment: Where its API key is looked up.

    Raises:
        ConfigurationError: Its key is not set, or its handler cannot be loaded.
    """
    key = resolve_key(name, deployment, environment)
    bounds = deployment.timeouts
    return ConnectedDeployment(
        name=name,
        provider=_provider(name, deployment, key, client),
        vendor=deployment.price_list,
        model=deployment.model,
        price=deployment.price_override,
        context_window=deployment.context_window,
        temperature=deployment.temperature,
        seed=deployment.seed,
        timeouts=Timeouts(bounds.connect, bounds.first_token, bounds.between_tokens, bounds.total),
        batches=_batches(deployment, key, client) if deployment.batch else None,
        guarded=None if deployment.in_process else guarded(name, deployment),
    )


def guarded(name: str, deployment: Deployment) -> Guarded:
    """What the gate knows a deployment by: its limits and whose health it shares."""
    quota = Scope(
        deployment.quota_key,
        requests_per_minute=deployment.requests_per_minute,
        tokens_per_minute=deployment.tokens_per_minute,
        concurrency=deployment.concurrency,
    )
    return Guarded(name, deployment.health_key, (quota,) if quota.limited else ())


def _provider(name: str, deployment: Deployment, key: SecretStr | None, client: HttpStream) -> Provider:
    match deployment.provider:
        case "extractive":
            return Extractive()
        case "handler":
            function = load_handler(deployment.model, deployment.parameters, where=f"deployments.{name}")
            return Handler(function, deployment.parameters)
        case "anthropic":
            return Anthropic(deployment.base_url, key, client)
        case flavour:
            return OpenAICompatible(
                deployment.base_url, key, client, max_tokens_field=deployment.max_tokens_field, flavour=flavour
            )


def _batches(deployment: Deployment, key: SecretStr | None, client: HttpStream) -> BatchProvider:
    if deployment.provider == "anthropic":
        return AnthropicBatches(deployment.base_url, key, client)
    return OpenAIBatches(deployment.base_url, key, client, max_tokens_field=deployment.max_tokens_field)
