"""One attempt to deliver an e-mail: plain text with a link, and none of what the request is about.

Header injection is impossible twice over: every value is one printable line before it is put into a header, and the
standard library's policy refuses a header with a line break. Mail goes to one recipient at a time, so nobody learns
from it who else is asked.
"""

import ssl
from datetime import datetime, timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

import aiosmtplib

from holdfast.notify.configuration import EmailTarget
from holdfast.notify.sending import Attempted

_LONGEST_VALUE = 120
_LONGEST_WHY = 300
_PERMANENT = range(500, 600)
_ASKS = {
    "output": "the answer of agent {agent} may leave",
    "budget": "a request to agent {agent} may go past its budget",
    "tool": "agent {agent} may call the tool {subject}",
}


class Mailer:
    """Sends e-mail through one server.

    Args:
        timeout: For each exchange with the server.
        tls: Replaces the certificates of the system, in tests.
    """

    def __init__(self, timeout: timedelta, *, tls: ssl.SSLContext | None = None) -> None:
        self._timeout = timeout
        self._tls = tls

    async def send(
        self, server: EmailTarget, recipient: str, message_id: str, event: dict[str, Any], now: datetime
    ) -> Attempted:
        """Send a message once.

        Args:
            server: Through which.
            recipient: One address.
            message_id: The same in every attempt; becomes the `Message-ID`.
            event: The notification, as webhooks have it.
            now: For the `Date`.
        """
        try:
            to = Address(addr_spec=recipient)
        except (HeaderParseError, ValueError, IndexError):
            return Attempted("the recipient's entry in people.toml is no e-mail address", for_good=True)
        message = compose(server, to, message_id, event, now)
        try:
            await aiosmtplib.send(
                message,
                sender=server.sender,
                recipients=[to.addr_spec],
                hostname=server.host,
                port=server.port,
                username=server.user.get_secret_value() if server.user else None,
                password=server.password.get_secret_value() if server.password else None,
                timeout=self._timeout.total_seconds(),
                use_tls=server.tls,
                start_tls=server.starttls,
                tls_context=(self._tls or ssl.create_default_context()) if server.tls or server.starttls else None,
            )
        except aiosmtplib.SMTPRecipientsRefused as refused:
            code = refused.recipients[0].code if refused.recipients else 0
            return Attempted(f"SMTP {code}: the recipient was refused", for_good=code in _PERMANENT)
        except aiosmtplib.SMTPAuthenticationError as refused:
            return Attempted(f"SMTP {refused.code}: the server refused the user and password")
        except aiosmtplib.SMTPResponseException as refused:
            # What a server says may repeat an address, so only its code is kept.
            return Attempted(f"SMTP {refused.code}")
        except (aiosmtplib.SMTPTimeoutError, TimeoutError):
            return Attempted(f"no answer within {self._timeout.total_seconds():g} s")
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            return Attempted(f"not sent: {type(error).__name__}")
        return Attempted()


def compose(server: EmailTarget, to: Address, message_id: str, event: dict[str, Any], now: datetime) -> EmailMessage:
    """The message."""
    kind, data = str(event["type"]), event["data"]
    subject, sentences = _words(kind, data)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = subject
    message["From"] = Address(_line(server.sender_name), addr_spec=server.sender)
    message["To"] = to
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{message_id}@{server.sender.rpartition('@')[2]}>"
    # RFC 3834: keeps vacation notices from answering.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join([*sentences, "", f"Request {_line(data['request_id'])}", ""]), charset="utf-8")
    return message


def _words(kind: str, data: dict[str, Any]) -> tuple[str, list[str]]:
    agent, links = _line(data["agent"]), data["links"]
    if kind == "request.completed":
        ended = _line(data["status"])
        return f"Request to {agent}: {ended}", [f"Your request to agent {agent} has ended: {ended}.", links["request"]]
    asked = _ASKS.get(str(data["kind"]), _ASKS["output"]).format(agent=agent, subject=_line(data["subject"]))
    match kind:
        case "approval.decided":
            by = f" by {_line(data['actor'])}" if data["actor"] else ""
            result = f"{_line(data['status'])}{by}"
            return f"{agent}: {_line(data['status'])}", [f"Whether {asked}: {result}.", links["request"]]
        case "approval.closed":
            return f"{agent}: no decision needed", [
                f"Whether {asked} needs no decision any more: the request has ended.",
                links["request"],
            ]
    head = {"approval.reminder": "Reminder: ", "approval.escalated": "Escalated to you: "}.get(kind, "")
    until = datetime.fromisoformat(str(data["deadline"]))
    return f"{head}{agent} waits for a decision", [
        f"{head}Please decide whether {asked}.",
        *_because(data),
        f"Until {until:%Y-%m-%d %H:%M} UTC.",
        "",
        links["inbox"],
    ]


def _because(data: dict[str, Any]) -> list[str]:
    """Why people are asked. A notification that was put in line by an earlier version does not say."""
    rule_why, why = _line(data.get("rule_why", ""), _LONGEST_WHY), _line(data.get("why", ""), _LONGEST_WHY)
    return [line for line in (rule_why, why and f"You are asked because {why}.") if line]


def _line(value: object, longest: int = _LONGEST_VALUE) -> str:
    """A value as one printable line: names of tools come from servers that are not ours."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return text[:longest]
