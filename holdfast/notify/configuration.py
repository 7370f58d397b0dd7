"""`config/notifications.toml`: who is told what, read whole and checked whole at start.

Secrets are named here and held in the environment. An address of a webhook may be a secret too, then `url_env` names
the variable that has it.
"""

import base64
import binascii
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from holdfast.addresses import check_hosts, forbidden_kind
from holdfast.contracts.plan import Name
from holdfast.errors import ConfigurationError
from holdfast.settings import Duration, Section, describe

EVENTS = (
    "approval.opened",
    "approval.reminder",
    "approval.escalated",
    "approval.decided",
    "approval.closed",
    "request.completed",
)
"""What can be told."""

FILE = "notifications.toml"

_SECRET = "whsec_"  # noqa: S105 - the prefix that the specification gives every secret
_SECRET_BYTES = range(24, 65)
"""Lengths of a key that the Standard Webhooks specification admits."""
_LONGEST = timedelta(days=30)
_MAIL_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
"""A name, or an IPv4 or IPv6 address."""
_SENDER = re.compile(r'"?(?P<name>[^"<>\x00-\x1f\x7f]*?)"? *<(?P<address>[^<>,\s]+)>|(?P<bare>[^<>,\s]+)')


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Several = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""A list, or its only element."""


class WebhookSettings(Section):
    """`[webhooks.<name>]`."""

    url: str = ""
    url_env: str = ""
    """Variable with the address, where the address itself lets whoever knows it in."""
    events: Several = EVENTS
    """Names, or patterns like `approval.*`."""
    agents: Several = ()
    """Only of these agents; empty is all."""
    tenants: Several = ()
    """Only of these tenants; empty is all."""
    secret_env: Several = Field(min_length=1, max_length=5)
    """Variables with the signing secrets, `whsec_...`; several while one replaces another."""
    private_hosts: Several = ()
    """Hosts that may be at private or loopback addresses."""
    http: bool = False
    """Whether the address may be `http://`."""


class EmailSettings(Section):
    """`[email]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, serialize_by_alias=True)

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65_535)
    starttls: bool = True
    """Refuse to go on in the clear."""
    tls: bool = False
    """TLS from the first byte, as on port 465, instead of `starttls`."""
    user_env: str = ""
    password_env: str = ""
    sender: str = Field(alias="from", min_length=3, max_length=254)
    events: Several = ("approval.opened", "approval.reminder", "approval.escalated")
    agents: Several = ()
    tenants: Several = ()


class SendingSettings(Section):
    """`[sending]`."""

    timeout: Duration = Field(default=timedelta(seconds=15), le=timedelta(seconds=60))
    """For one whole exchange with a target."""
    first_wait: Duration = timedelta(seconds=5)
    """Before the second attempt; each later one comes after four times as long in all."""
    longest_wait: Duration = timedelta(hours=4)
    give_up_after: Duration = Field(default=timedelta(days=1), le=_LONGEST)
    """After which a notification is dead."""


class NotificationsFile(Section):
    """The whole file."""

    webhooks: dict[Name, WebhookSettings] = Field(default_factory=dict)
    email: EmailSettings | None = None
    sending: SendingSettings = SendingSettings()


@dataclass(frozen=True)
class Pace:
    """How long one attempt may take, and when the next one comes."""

    timeout: timedelta = timedelta(seconds=15)
    first_wait: timedelta = timedelta(seconds=5)
    longest_wait: timedelta = timedelta(hours=4)
    give_up_after: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Wanted:
    """Which events a target is told."""

    events: frozenset[str]
    agents: frozenset[str]
    tenants: frozenset[str]

    def wants(self, event: str, agent: str, tenant: str) -> bool:
        """Whether it is told of an event of a tenant's agent."""
        return (
            event in self.events
            and (not self.agents or agent in self.agents)
            and (not self.tenants or tenant in self.tenants)
        )


@dataclass(frozen=True)
class WebhookTarget:
    """A webhook with its secrets."""

    name: str
    wanted: Wanted
    url: SecretStr
    host: str
    """Host and port as `holdfast.addresses` lists them."""
    secrets: tuple[SecretStr, ...]
    private_hosts: tuple[str, ...] = ()
    http: bool = False


@dataclass(frozen=True)
class EmailTarget:
    """The mail server."""

    wanted: Wanted
    host: str
    port: int
    starttls: bool
    tls: bool
    user: SecretStr | None
    password: SecretStr | None
    sender_name: str
    sender: str
    """The address alone."""


@dataclass(frozen=True)
class Notifications:
    """Who is told what. Without a file nobody is."""

    webhooks: Mapping[str, WebhookTarget]
    email: EmailTarget | None = None
    pace: Pace = Pace()


def load_notifications(directory: Path, environment: Mapping[str, str], agents: Collection[str]) -> Notifications:
    """Read `notifications.toml` and the secrets that it names; the file may be absent.

    Args:
        directory: Of the configuration.
        environment: Where secrets are looked up.
        agents: Names of the agents that there are.

    Raises:
        ConfigurationError: With file, key and remedy, and never with a secret.
    """
    file = directory / FILE
    if not file.exists():
        return Notifications({})
    try:
        written = NotificationsFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, NotificationsFile)}") from None
    sending = written.sending
    return Notifications(
        {
            name: _webhook(name, settings, f"{file}: `webhooks.{name}", environment, agents)
            for name, settings in written.webhooks.items()
        },
        None if written.email is None else _email(written.email, f"{file}: `email", environment, agents),
        Pace(sending.timeout, sending.first_wait, sending.longest_wait, sending.give_up_after),
    )


def _webhook(
    name: str, settings: WebhookSettings, where: str, environment: Mapping[str, str], agents: Collection[str]
) -> WebhookTarget:
    if bool(settings.url) == bool(settings.url_env):
        raise ConfigurationError(f"{where}`: give it either `url`, or `url_env` with the variable that holds it.")
    key = "url_env" if settings.url_env else "url"
    url = settings.url or _variable(settings.url_env, f"{where}.url_env`", environment).get_secret_value()
    private = check_hosts(settings.private_hosts, f"{where}.private_hosts`")
    return WebhookTarget(
        name=name,
        wanted=_wanted(settings.events, settings.agents, settings.tenants, where, agents),
        url=SecretStr(url),
        host=_host(url, f"{where}.{key}`", http=settings.http, private=bool(private)),
        secrets=tuple(_secret(variable, f"{where}.secret_env`", environment) for variable in settings.secret_env),
        private_hosts=private,
        http=settings.http,
    )


def _host(url: str, where: str, *, http: bool, private: bool) -> str:
    """Host and port of an address, after what can be seen wrong with it without asking a resolver."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"{where} is not a URL; write e.g. 'https://hooks.example.org/holdfast'.") from None
    admitted = ("https", "http") if http else ("https",)
    if parts.scheme not in admitted or not host:
        remedy = "" if http else ", or set `http = true` if it may be sent in the clear"
        raise ConfigurationError(f"{where} must be {' or '.join(f'{one}://host...' for one in admitted)}{remedy}.")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{where} holds a user name or password; receivers check the signature instead.")
    if (kind := _literal_kind(host)) is not None and not private:
        raise ConfigurationError(f"{where} is at {kind} address; list its host in `private_hosts` if that is right.")
    shown = f"[{host}]" if ":" in host else host
    (pattern,) = check_hosts([f"{shown}:{port or (443 if parts.scheme == 'https' else 80)}"], where)
    return pattern


def _literal_kind(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "a loopback" if host == "localhost" else None
    return forbidden_kind(host)


def _secret(variable: str, where: str, environment: Mapping[str, str]) -> SecretStr:
    secret = _variable(variable, where, environment)
    written = secret.get_secret_value()
    try:
        key = base64.b64decode(written.removeprefix(_SECRET), validate=True) if written.startswith(_SECRET) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _SECRET_BYTES:
        raise ConfigurationError(
            f"{where}: {variable} is no signing secret; it must be {_SECRET!r} and the base64 of 24 to 64 random "
            f'bytes. Make one with: echo "{_SECRET}$(openssl rand -base64 32)"'
        )
    return secret


def _email(settings: EmailSettings, where: str, environment: Mapping[str, str], agents: Collection[str]) -> EmailTarget:
    if bool(settings.user_env) != bool(settings.password_env):
        raise ConfigurationError(f"{where}`: give both `user_env` and `password_env`, or neither.")
    if settings.user_env and not (settings.starttls or settings.tls):
        raise ConfigurationError(f"{where}`: a password is not sent in the clear; set `starttls` or `tls`.")
    if _MAIL_HOST.fullmatch(settings.host) is None:
        raise ConfigurationError(f"{where}.host` is no host; write its name alone, e.g. 'mail.example.org'.")
    sender = _SENDER.fullmatch(settings.sender)
    return EmailTarget(
        wanted=_wanted(settings.events, settings.agents, settings.tenants, where, agents),
        host=settings.host,
        port=settings.port,
        starttls=settings.starttls and not settings.tls,
        tls=settings.tls,
        user=_variable(settings.user_env, f"{where}.user_env`", environment) if settings.user_env else None,
        password=(
            _variable(settings.password_env, f"{where}.password_env`", environment) if settings.password_env else None
        ),
        sender_name=(sender["name"] or "") if sender else "",
        sender=_mail_address((sender["address"] or sender["bare"]) if sender else "", f"{where}.from`"),
    )


def _mail_address(address: str, where: str) -> str:
    try:
        parsed = Address(addr_spec=address)
    except (HeaderParseError, ValueError, IndexError):
        parsed = Address()
    if not parsed.username or not parsed.domain or not address.isascii():
        raise ConfigurationError(f"{where} is no e-mail address; write e.g. 'Holdfast <holdfast@example.org>'.")
    return parsed.addr_spec


def _wanted(
    events: Collection[str], only: Iterable[str], tenants: Iterable[str], where: str, agents: Collection[str]
) -> Wanted:
    chosen: set[str] = set()
    if not events:
        raise ConfigurationError(f"{where}.events` is empty, so nothing would be told; leave it out for the default.")
    for pattern in events:
        matching = {event for event in EVENTS if pattern in ("*", event) or _below(pattern, event)}
        if not matching:
            raise ConfigurationError(f"{where}.events`: no event is called {pattern!r}.{_hint(pattern, EVENTS)}")
        chosen |= matching
    for agent in only:
        if agent not in agents:
            raise ConfigurationError(f"{where}.agents`: agent {agent!r} is not defined.{_hint(agent, agents)}")
    return Wanted(frozenset(chosen), frozenset(only), frozenset(tenants))


def _below(pattern: str, event: str) -> bool:
    return pattern.endswith(".*") and event.startswith(pattern[:-1])


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(sorted(known))}."


def _variable(name: str, where: str, environment: Mapping[str, str]) -> SecretStr:
    value = environment.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{where} names the variable {name!r}, which is not set or empty.")
    return SecretStr(value)
