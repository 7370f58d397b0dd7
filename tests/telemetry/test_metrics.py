"""What is measured, under which names and attributes."""

from datetime import timedelta
from decimal import Decimal

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint

from holdfast.contracts import Status, Usage
from holdfast.errors import Outcome
from holdfast.limits import Dimension
from holdfast.telemetry import HeldBack, Metrics, NotificationOutcome
from tests.telemetry.measured import USAGE, Measured, keyed, record_everything

CALL = {
    "gen_ai__operation__name": "chat",
    "gen_ai__provider__name": "gcp.gemini",
    "gen_ai__request__model": "sim-large",
    "holdfast__deployment": "primary",
}


def ended(
    metrics: Metrics,
    outcome: Outcome = Outcome.OK,
    *,
    first_token: timedelta | None = timedelta(seconds=1),
    usage: Usage | None = USAGE,
    cost_usd: Decimal | None = Decimal("0.25"),
    duration: timedelta = timedelta(seconds=3),
) -> None:
    """Record one call."""
    metrics.call_ended(
        "primary",
        model="sim-large",
        vendor="google",
        outcome=outcome,
        duration=duration,
        first_token=first_token,
        usage=usage,
        cost_usd=cost_usd,
    )


def test_a_call_is_measured_as_the_conventions_ask() -> None:
    measured = Measured()
    ended(measured.metrics)
    assert measured.values("gen_ai.client.operation.duration") == {keyed(**CALL): 3.0}
    assert measured.values("gen_ai.client.operation.time_to_first_chunk") == {keyed(**CALL): 1.0}
    assert measured.values("gen_ai.client.token.usage") == {
        keyed(**CALL, gen_ai__token__type="input"): 15,
        keyed(**CALL, gen_ai__token__type="output"): 5,
    }
    assert measured.values("holdfast.tokens.cache_read") == {keyed(**CALL): 3}
    assert measured.values("holdfast.tokens.cache_write") == {keyed(**CALL): 2}
    assert measured.values("holdfast.time_per_output_token") == {keyed(**CALL): 0.5}
    assert measured.values("holdfast.spend.usd") == {keyed(**CALL): 0.25}
    attempt = keyed(holdfast__deployment="primary", holdfast__outcome="ok")
    assert measured.values("holdfast.attempts") == {attempt: 1}


def test_the_next_generation_counts_tokens_by_metrics_of_their_own() -> None:
    measured = Measured("next")
    ended(measured.metrics)
    ended(measured.metrics)
    assert measured.values("gen_ai.client.inference.operation.input_tokens") == {keyed(**CALL): 30}
    assert measured.values("gen_ai.client.inference.operation.output_tokens") == {keyed(**CALL): 10}
    text = keyed(**CALL, gen_ai__token__modality="text")
    spent = "gen_ai.client.inference.usage."
    assert measured.values(spent + "input_tokens") == {text: 30}
    assert measured.values(spent + "output_tokens") == {text: 10}
    assert measured.values(spent + "cache_read.input_tokens") == {text: 6}
    assert measured.values(spent + "cache_write.input_tokens") == {text: 4}
    assert "gen_ai.client.token.usage" not in measured.all()


def test_histograms_have_the_buckets_of_the_conventions() -> None:
    measured = Measured()
    ended(measured.metrics)
    seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    tokens = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
    for name, boundaries in (
        ("gen_ai.client.operation.duration", seconds),
        ("gen_ai.client.operation.time_to_first_chunk", seconds),
        ("gen_ai.client.token.usage", tokens),
    ):
        for point in measured.all()[name].data.data_points:
            assert isinstance(point, HistogramDataPoint)
            assert list(point.explicit_bounds) == boundaries


def test_a_failed_call_has_its_outcome_and_nothing_made_up() -> None:
    measured = Measured()
    ended(measured.metrics, Outcome.UNKNOWN, first_token=None, usage=None, cost_usd=Decimal("0.50"))
    failed = keyed(**CALL, error__type="unknown")
    assert measured.values("gen_ai.client.operation.duration") == {failed: 3.0}
    attempt = keyed(holdfast__deployment="primary", holdfast__outcome="unknown")
    assert measured.values("holdfast.attempts") == {attempt: 1}
    assert measured.values("holdfast.spend.usd") == {keyed(**CALL): 0.5}, "the worst case that stays is spent"
    assert set(measured.all()) == {"gen_ai.client.operation.duration", "holdfast.attempts", "holdfast.spend.usd"}


def test_a_call_without_a_price_adds_nothing_to_the_spending() -> None:
    measured = Measured()
    ended(measured.metrics, cost_usd=None)
    assert "holdfast.spend.usd" not in measured.all()


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_reply_of_one_token_has_no_time_between_tokens(tokens: int) -> None:
    measured = Measured()
    ended(measured.metrics, usage=Usage(input_tokens=1, output_tokens=tokens))
    assert "holdfast.time_per_output_token" not in measured.all()


def test_clocks_that_disagree_give_no_negative_time() -> None:
    measured = Measured()
    ended(measured.metrics, duration=timedelta(seconds=-1))
    measured.metrics.queued("primary", timedelta(seconds=-5))
    measured.metrics.throttled("primary", HeldBack.TOKENS, timedelta(seconds=-5))
    for name in ("gen_ai.client.operation.duration", "holdfast.queue.time", "holdfast.limiter.wait"):
        assert set(measured.values(name).values()) == {0.0}
    assert set(measured.values("holdfast.time_per_output_token").values()) == {0.0}


def test_waits_are_kept_by_deployment_and_reason() -> None:
    measured = Measured()
    measured.metrics.queued("primary", timedelta(seconds=2))
    measured.metrics.throttled("primary", HeldBack.REQUESTS, timedelta(seconds=4))
    measured.metrics.throttled("primary", HeldBack.BREAKER, timedelta(seconds=6))
    assert measured.values("holdfast.queue.time") == {keyed(holdfast__deployment="primary"): 2.0}
    assert measured.values("holdfast.limiter.wait") == {
        keyed(holdfast__deployment="primary", holdfast__reason="requests"): 4.0,
        keyed(holdfast__deployment="primary", holdfast__reason="breaker"): 6.0,
    }


def test_every_dimension_of_the_limiter_has_a_reason() -> None:
    assert {dimension.name for dimension in Dimension} == {reason.name for reason in HeldBack} - {"BREAKER"}


def test_a_breaker_is_counted_when_it_changes_and_not_at_every_look() -> None:
    measured = Measured()
    for state in ("closed", "open", "open", "half_open", "closed", "cooling", "closed", "closed"):
        measured.metrics.breaker("primary", state)
    measured.metrics.breaker("spare", "open")
    assert measured.values("holdfast.breaker.transitions") == {
        keyed(holdfast__deployment="primary", holdfast__state="open"): 1,
        keyed(holdfast__deployment="primary", holdfast__state="half_open"): 1,
        keyed(holdfast__deployment="primary", holdfast__state="closed"): 2,
        keyed(holdfast__deployment="primary", holdfast__state="cooling"): 1,
        keyed(holdfast__deployment="spare", holdfast__state="open"): 1,
    }


def test_requests_and_edge_hits_are_counted_by_agent() -> None:
    measured = Measured()
    measured.metrics.request_ended("support", Status.COMPLETED)
    measured.metrics.request_ended("support", Status.DENIED)
    measured.metrics.request_ended("support", Status.DENIED)
    measured.metrics.edge_hit("support")
    assert measured.values("holdfast.requests") == {
        keyed(holdfast__agent="support", holdfast__status="completed"): 1,
        keyed(holdfast__agent="support", holdfast__status="denied"): 2,
    }
    assert measured.values("holdfast.edge.hits") == {keyed(holdfast__agent="support"): 1}


def test_only_what_was_delivered_has_a_time_until_it_was_told() -> None:
    measured = Measured()
    came: tuple[tuple[NotificationOutcome, int], ...] = (
        ("retried", 1),
        ("retried", 6),
        ("delivered", 26),
        ("dead", 900),
    )
    for outcome, seconds in came:
        measured.metrics.notified("webhook:ops", "approval.opened", outcome, timedelta(seconds=seconds))
    told = {"holdfast__target": "webhook:ops", "holdfast__event": "approval.opened"}
    assert measured.values("holdfast.notification.time") == {keyed(**told): 26.0}
    assert measured.values("holdfast.notification.attempts") == {
        keyed(**told, holdfast__outcome="retried"): 2,
        keyed(**told, holdfast__outcome="delivered"): 1,
        keyed(**told, holdfast__outcome="dead"): 1,
    }


@pytest.mark.parametrize("generation", ["v1.41", "next"])
def test_no_metric_tells_tenants_users_or_requests_apart(generation: str) -> None:
    measured = Measured(generation)
    record_everything(measured.metrics)
    names = {str(name) for metric in measured.all() for key in measured.values(metric) for name, _ in key}
    assert names <= {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.token.modality",
        "gen_ai.token.type",
        "error.type",
        "holdfast.agent",
        "holdfast.deployment",
        "holdfast.event",
        "holdfast.outcome",
        "holdfast.reason",
        "holdfast.state",
        "holdfast.status",
        "holdfast.target",
    }


def test_two_providers_share_nothing() -> None:
    first, second = Measured(), Measured()
    first.metrics.edge_hit("support")
    first.metrics.breaker("primary", "open")
    assert second.all() == {}
    second.metrics.breaker("primary", "closed")
    assert second.all() == {}


def test_without_a_provider_recording_does_nothing() -> None:
    record_everything(Metrics())
