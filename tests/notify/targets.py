"""Targets and people for the tests of notifications."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from holdfast.notify import EVENTS, EmailTarget, WebhookTarget
from holdfast.notify.configuration import Wanted

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"the one before, of equal length.").decode()
EVERYTHING = Wanted(frozenset(EVENTS), frozenset(), frozenset())


@dataclass(frozen=True)
class People:
    """Users by role, and their addresses, for every tenant."""

    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    emails: Mapping[str, str] = field(default_factory=dict)

    def users_of(self, tenant: str, approvers: Sequence[str]) -> tuple[str, ...]:
        """Roles opened up."""
        del tenant
        found: list[str] = []
        for approver in approvers:
            role = approver.removeprefix("role:")
            found += self.roles.get(role, ()) if role != approver else () if approver == "*" else [approver]
        return tuple(dict.fromkeys(found))

    def email_of(self, tenant: str, user: str) -> str | None:
        """An address."""
        del tenant
        return self.emails.get(user)


def hook(
    url: str,
    *secrets: str,
    name: str = "ops",
    wanted: Wanted = EVERYTHING,
    private_hosts: tuple[str, ...] = ("127.0.0.1",),
    http: bool = True,
) -> WebhookTarget:
    """A webhook at an address on this machine."""
    return WebhookTarget(
        name=name,
        wanted=wanted,
        url=SecretStr(url),
        host=url.partition("://")[2].partition("/")[0],
        secrets=tuple(SecretStr(secret) for secret in secrets or (SECRET,)),
        private_hosts=private_hosts,
        http=http,
    )


def mail_server(port: int, *, starttls: bool = False, user: str = "", password: str = "") -> EmailTarget:
    """A mail server on this machine."""
    return EmailTarget(
        wanted=EVERYTHING,
        host="127.0.0.1",
        port=port,
        starttls=starttls,
        tls=False,
        user=SecretStr(user) if user else None,
        password=SecretStr(password) if password else None,
        sender_name="Holdfast",
        sender="holdfast@example.org",
    )
