"""Telling people and programs what happened: webhooks signed by the Standard Webhooks specification, and e-mail."""

from holdfast.notify.configuration import (
    EVENTS,
    EmailTarget,
    Notifications,
    Pace,
    WebhookTarget,
    load_notifications,
)
from holdfast.notify.mail import Mailer
from holdfast.notify.messages import Addresses, Links, ended_messages, note_messages
from holdfast.notify.notifier import Later, Notifier
from holdfast.notify.pace import next_wait
from holdfast.notify.sending import Attempted
from holdfast.notify.webhooks import Webhooks, signature_headers

__all__ = [
    "EVENTS",
    "Addresses",
    "Attempted",
    "EmailTarget",
    "Later",
    "Links",
    "Mailer",
    "Notifications",
    "Notifier",
    "Pace",
    "WebhookTarget",
    "Webhooks",
    "ended_messages",
    "load_notifications",
    "next_wait",
    "note_messages",
    "signature_headers",
]
