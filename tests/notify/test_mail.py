"""E-mail, against a real SMTP server: plain text with a link, one recipient, and nothing that a name can add to it."""

import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from holdfast.notify import Attempted, EmailTarget, Mailer
from holdfast.notify.mail import compose
from tests.notify.mailbox import Mailbox, only, serving
from tests.notify.targets import mail_server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def event(kind: str = "approval.opened", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A notification."""
    data = {
        "tenant": "acme",
        "request_id": "req_00000001",
        "agent": "support",
        "kind": "tool",
        "subject": "refund",
        "deadline": "2026-11-21T16:00:00.000Z",
        "status": "waiting",
        "actor": "",
        "links": {
            "inbox": "https://holdfast.example.org/inbox/req_00000001",
            "request": "https://holdfast.example.org/requests/req_00000001",
        },
    }
    return {"type": kind, "timestamp": "2026-11-21T12:00:00.000Z", "data": {**data, **(changes or {})}}


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A server that accepts."""
    async with serving() as opened:
        yield opened


async def send(
    server: EmailTarget, to: str = "ann@example.com", made: dict[str, Any] | None = None, mailer: Mailer | None = None
) -> Attempted:
    """Send a notification."""
    return await (mailer or Mailer(timedelta(seconds=10))).send(server, to, "msg_1", made or event(), NOW)


async def test_an_approver_is_sent_plain_text_with_the_link(mailbox: Mailbox) -> None:
    assert await send(mail_server(mailbox.port)) == Attempted()
    message = only(mailbox)
    assert mailbox.envelopes[0].mail_from == "holdfast@example.org"
    assert mailbox.envelopes[0].rcpt_tos == ["ann@example.com"]
    assert (message["To"], message["From"]) == ("ann@example.com", "Holdfast <holdfast@example.org>")
    assert message["Subject"] == "support waits for a decision"
    assert message["Message-ID"] == "<msg_1@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().splitlines() == [
        "Please decide whether agent support may call the tool refund.",
        "Until 2026-11-21 16:00 UTC.",
        "",
        "https://holdfast.example.org/inbox/req_00000001",
        "",
        "Request req_00000001",
    ]


def test_an_approver_is_told_why_in_the_words_of_the_agent_s_file() -> None:
    why = {"why": "`args.amount > 100` holds", "rule_why": "Refunds above 100 EUR need two people.\r\nBcc: x"}
    message = compose(mail_server(25), Address(addr_spec="ann@example.com"), "msg_1", event(changes=why), NOW)
    assert message.get_content().splitlines()[1:3] == [
        "Refunds above 100 EUR need two people.  Bcc: x",
        "You are asked because `args.amount > 100` holds.",
    ]


@pytest.mark.parametrize(
    ("kind", "changes", "subject", "sentence"),
    [
        ("approval.reminder", {}, "Reminder: support waits for a decision", "Reminder: Please decide whether"),
        ("approval.escalated", {}, "Escalated to you: support waits", "Escalated to you: Please decide whether"),
        ("approval.decided", {"status": "approved", "actor": "bob"}, "support: approved", "approved by bob."),
        ("approval.decided", {"status": "rejected"}, "support: rejected", "rejected."),
        ("approval.closed", {"kind": "output"}, "support: no decision needed", "the answer of agent support may leave"),
        ("approval.opened", {"kind": "budget"}, "support waits", "a request to agent support may go past its budget"),
        ("request.completed", {"status": "failed"}, "Request to support: failed", "has ended: failed."),
    ],
)
async def test_each_event_has_its_words(
    mailbox: Mailbox, kind: str, changes: dict[str, Any], subject: str, sentence: str
) -> None:
    await send(mail_server(mailbox.port), made=event(kind, changes))
    assert only(mailbox)["Subject"].startswith(subject)
    assert sentence in only(mailbox).get_content()


@given(st.text(), st.text(), st.text())
def test_no_name_can_add_a_header_or_a_line(agent: str, tool: str, actor: str) -> None:
    for kind in ("approval.opened", "approval.decided", "request.completed"):
        made = event(kind, {"agent": agent, "subject": tool, "actor": actor, "status": tool})
        sent = message_from_bytes(
            compose(mail_server(25), Address(addr_spec="ann@example.com"), "msg_1", made, NOW).as_bytes(),
            policy=default,
        )
        assert sorted(sent.keys()) == sorted(
            (
                "Subject",
                "From",
                "To",
                "Date",
                "Message-ID",
                "Auto-Submitted",
                "Content-Type",
                "Content-Transfer-Encoding",
                "MIME-Version",
            )
        )
        assert sent["To"] == "ann@example.com"
        assert len(sent.get_content().split("\n")) <= 8


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com\r\nBcc: eve@example.org",
        "ann@example.com, eve@example.org",
        "<ann@example.com>",
        "ann",
        "",
        "@",
    ],
)
async def test_an_entry_that_is_no_address_is_sent_nothing(mailbox: Mailbox, address: str) -> None:
    attempted = await send(mail_server(mailbox.port), address)
    assert attempted.for_good
    assert mailbox.envelopes == []


async def test_a_recipient_refused_for_good_is_not_tried_again_and_one_refused_for_now_is(mailbox: Mailbox) -> None:
    mailbox.recipient_answer = "550 no such user ann@example.com"
    assert await send(mail_server(mailbox.port)) == Attempted("SMTP 550: the recipient was refused", for_good=True)
    mailbox.recipient_answer = "451 greylisted"
    assert await send(mail_server(mailbox.port)) == Attempted("SMTP 451: the recipient was refused")
    mailbox.recipient_answer, mailbox.data_answer = "250 OK", "554 we do not like ann@example.com"
    assert await send(mail_server(mailbox.port)) == Attempted("SMTP 554")


async def test_a_server_that_is_down_or_silent_is_tried_again(mailbox: Mailbox) -> None:
    async with serving() as gone:
        port = gone.port
    assert (await send(mail_server(port))).problem == "not sent: SMTPConnectError"
    mailbox.answers = False
    silent = await send(mail_server(mailbox.port), mailer=Mailer(timedelta(milliseconds=300)))
    assert silent == Attempted("no answer within 0.3 s")


async def test_mail_that_should_be_encrypted_is_never_sent_in_the_clear(mailbox: Mailbox) -> None:
    attempted = await send(mail_server(mailbox.port, starttls=True))
    assert attempted.problem
    assert not attempted.for_good
    assert mailbox.envelopes == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


async def test_user_and_password_go_over_tls_to_a_server_that_is_who_it_says(certificate: Path) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    mailer = Mailer(timedelta(seconds=10), tls=ssl.create_default_context(cafile=str(certificate)))

    def knows(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
        del server, session, envelope, mechanism
        return AuthResult(success=(data.login, data.password) == (b"holdfast", b"password-secret"), handled=False)

    async with serving(tls_context=server_side, require_starttls=True, authenticator=knows, auth_required=True) as box:
        server = mail_server(box.port, starttls=True, user="holdfast", password="password-secret")
        wrong = mail_server(box.port, starttls=True, user="holdfast", password="guessed-secret")
        refused = await send(wrong, mailer=mailer)
        assert refused == Attempted("SMTP 535: the server refused the user and password")
        stranger = await send(server)
        assert stranger.problem.startswith("not sent: ")
        assert box.envelopes == []
        sent = await send(server, mailer=mailer)
        assert sent == Attempted()
        assert only(box)["To"] == "ann@example.com"
