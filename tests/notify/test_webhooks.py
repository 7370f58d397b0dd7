"""One attempt at a webhook: signed so that the specification's own library accepts it, and sent nowhere else."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from holdfast.notify import Attempted, Webhooks
from tests.notify.receiver import Receiver, reply
from tests.notify.targets import OLD_SECRET, SECRET, hook

BODY = '{"type":"approval.opened","data":{"agent":"größe"}}'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that accepts."""
    async with Receiver() as opened:
        yield opened


@pytest.fixture
def webhooks() -> Webhooks:
    """A sender."""
    return Webhooks(timedelta(seconds=10))


async def test_the_specifications_own_library_verifies_what_arrives(receiver: Receiver, webhooks: Webhooks) -> None:
    assert await webhooks.send(hook(receiver.url), "msg_1", BODY) == Attempted()
    (message,) = receiver.received
    assert Webhook(SECRET).verify(message.body, message.headers) == json.loads(BODY)
    assert message.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(message.body.replace("opened", "closed"), message.headers)


async def test_while_a_secret_is_rotated_holders_of_the_old_and_of_the_new_one_verify(
    receiver: Receiver, webhooks: Webhooks
) -> None:
    await webhooks.send(hook(receiver.url, SECRET, OLD_SECRET), "msg_1", BODY)
    await webhooks.send(hook(receiver.url, SECRET), "msg_1", BODY)
    rotating, rotated = receiver.received
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(rotating.body, rotating.headers)
    assert Webhook(SECRET).verify(rotated.body, rotated.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(rotated.body, rotated.headers)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 502, 503])
async def test_whatever_is_no_success_is_tried_again(receiver: Receiver, webhooks: Webhooks, status: int) -> None:
    receiver.script.append(reply(status))
    assert await webhooks.send(hook(receiver.url), "msg_1", BODY) == Attempted(f"HTTP {status}")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_says_how_long_to_wait(receiver: Receiver, webhooks: Webhooks, status: int) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    receiver.script += [
        reply(status, Retry_After="120"),
        reply(status, Retry_After=format_datetime(now + timedelta(hours=1), usegmt=True)),
    ]
    seconds = await webhooks.send(hook(receiver.url), "msg_1", BODY, now)
    date = await webhooks.send(hook(receiver.url), "msg_1", BODY, now)
    assert (seconds.retry_after, date.retry_after) == (timedelta(minutes=2), timedelta(hours=1))


async def test_a_receiver_that_is_gone_is_told_nothing_more(receiver: Receiver, webhooks: Webhooks) -> None:
    receiver.script.append(reply(410))
    attempted = await webhooks.send(hook(receiver.url), "msg_1", BODY)
    assert attempted.for_good
    assert attempted.problem.startswith("HTTP 410")


async def test_a_redirect_is_not_followed_wherever_it_leads(receiver: Receiver, webhooks: Webhooks) -> None:
    async with Receiver() as inside:
        for status in (301, 302, 307, 308):
            receiver.script.append(reply(status, Location=inside.url))
            attempted = await webhooks.send(hook(receiver.url), "msg_1", BODY)
            assert attempted.problem.startswith(f"HTTP {status}: redirects are not followed")
        assert inside.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"])
async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(receiver: Receiver, address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ("192.0.2.1", address) if address == "10.0.0.1" else (address,)

    target = hook(f"http://hooks.example.org:{receiver.port}/path-secret", private_hosts=())
    attempted = await Webhooks(timedelta(seconds=10), resolve=resolve).send(target, "msg_1", BODY)
    assert attempted.problem.startswith("refused: ")
    assert receiver.connections == 0


async def test_a_name_is_looked_up_once_for_each_attempt(receiver: Receiver) -> None:
    answers = [("127.0.0.1",), ("169.254.169.254",)]

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    target = hook(f"http://hooks.example.org:{receiver.port}/", private_hosts=("hooks.example.org",))
    sender = Webhooks(timedelta(seconds=10), resolve=rebinding)
    assert await sender.send(target, "msg_1", BODY) == Attempted()
    assert receiver.received[0].headers["host"] == f"hooks.example.org:{receiver.port}"
    assert (await sender.send(target, "msg_1", BODY)).problem.startswith("refused: ")
    assert receiver.connections == 1


async def test_a_receiver_that_drips_its_answer_is_left(receiver: Receiver) -> None:
    receiver.script.append(None)
    attempted = await Webhooks(timedelta(milliseconds=300)).send(hook(receiver.url), "msg_1", BODY)
    assert attempted == Attempted("no answer within 0.3 s")


async def test_a_receiver_whose_body_never_ends_has_answered_with_its_headers(
    receiver: Receiver, webhooks: Webhooks
) -> None:
    receiver.script.append(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
    assert await webhooks.send(hook(receiver.url), "msg_1", BODY) == Attempted()


@pytest.mark.parametrize(
    "answer",
    [b"\x00\xff garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, b"HTTP/1.1 99999 X\r\n\r\n"],
)
async def test_garbage_is_no_success_and_names_no_address(
    receiver: Receiver, webhooks: Webhooks, answer: bytes
) -> None:
    receiver.script.append(answer)
    attempted = await webhooks.send(hook(receiver.url), "msg_1", BODY)
    assert attempted.problem
    assert "secret" not in attempted.problem
    assert "127.0.0.1" not in attempted.problem


async def test_a_receiver_that_is_down_is_tried_again(webhooks: Webhooks) -> None:
    async with Receiver() as gone:
        url = gone.url
    assert await webhooks.send(hook(url), "msg_1", BODY) == Attempted("no connection")


async def test_nothing_secret_is_logged(
    receiver: Receiver, webhooks: Webhooks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    receiver.script.append(reply(500))
    await webhooks.send(hook(receiver.url), "msg_1", BODY)
    await webhooks.send(hook(receiver.url), "msg_1", BODY)
    for secret in ("path-secret", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in caplog.text
        assert secret not in repr(hook(receiver.url))
