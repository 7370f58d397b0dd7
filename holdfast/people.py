"""Who people are: the roles that approvals name and the addresses that notifications go to, from `config/people.toml`.

The file is looked at again whenever it has changed, so that somebody who is taken out of a role cannot decide in it any
more. While it cannot be read nobody has a role: an approval is rather held up than given by someone who may not.
"""

import difflib
import json
import logging
import re
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from holdfast.approval import EVERYONE, NOBODY, ROLE
from holdfast.errors import ConfigurationError
from holdfast.settings import Section, describe

logger = logging.getLogger("holdfast.people")

FRESH_NS = 2_000_000_000
"""Age below which a file's stamp does not tell its states apart."""

_ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ATOM = r"[^@\s<>,;:\"\\()\[\].\x00-\x1f\x7f-\U0010ffff]+"
_ADDRESS = re.compile(rf"(?=.{{3,254}}\Z){_ATOM}(\.{_ATOM})*@{_ATOM}(\.{_ATOM})*")


class TenantPeople(Section):
    """`[tenants.<tenant>]`."""

    roles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The users that have each role."""
    emails: dict[str, str] = Field(default_factory=dict)
    """Where each user is told."""

    @field_validator("roles", mode="before")
    @classmethod
    def _are_lists(cls, roles: object) -> object:
        for role, users in roles.items() if isinstance(roles, dict) else ():
            if isinstance(users, str):
                raise ValueError(f"role {role!r} holds a single name; write a list: [{json.dumps(users)}]")
        return roles

    @field_validator("roles")
    @classmethod
    def _are_roles(cls, roles: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for role, users in roles.items():
            if not _ROLE_NAME.fullmatch(role):
                raise ValueError(f"{role[:80]!r} is no name of a role; use letters, digits, `-`, `_` and `.`")
            for user in users:
                if not user.strip() or user in (EVERYONE, NOBODY) or user.startswith(ROLE):
                    raise ValueError(f"role {role!r} holds {user!r}; name users, not roles or everyone")
                if user != user.strip() or not user.isprintable():
                    raise ValueError(f"role {role!r} holds {user!r}, whom nobody can be; take out what is around it")
        return roles

    @field_validator("emails")
    @classmethod
    def _are_addresses(cls, emails: dict[str, str]) -> dict[str, str]:
        for user, address in emails.items():
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"what user {user!r} has is no e-mail address; write it like ann@example.org")
        return emails


class PeopleFile(Section):
    """All of `people.toml`."""

    tenants: dict[str, TenantPeople] = Field(default_factory=dict)


class People:
    """Everybody whom the file knows, as it is now.

    Args:
        path: The file; there need not be one.

    Raises:
        ConfigurationError: It cannot be used. Later changes are not raised but logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._file = _read(path)
        self._problem = ""

    def roles_of(self, tenant: str, user: str) -> tuple[str, ...]:
        """The roles of a user, in the order of the file."""
        return tuple(role for role, users in self._tenant(tenant).roles.items() if user in users)

    def users_of(self, tenant: str, approvers: Sequence[str]) -> tuple[str, ...]:
        """The users that approvers name, by name or by role, each once. Whom `*` means nobody knows."""
        roles = self._tenant(tenant).roles
        named: dict[str, None] = {}
        for approver in approvers:
            if approver.startswith(ROLE):
                named |= dict.fromkeys(roles.get(approver.removeprefix(ROLE), ()))
            elif approver != EVERYONE:
                named[approver] = None
        return tuple(named)

    def email_of(self, tenant: str, user: str) -> str | None:
        """Where a user is told, if that is known."""
        return self._tenant(tenant).emails.get(user)

    def check(self, approvers: Sequence[str], where: str) -> None:
        """Check when an agent is loaded that somebody can have the roles which its approvers name.

        Args:
            approvers: Of a rule.
            where: File and key, for the message.

        Raises:
            ConfigurationError: A role is given to nobody, in no tenant.
        """
        tenants = self._now().tenants.values()
        known = sorted({role for tenant in tenants for role, users in tenant.roles.items() if users})
        for approver in approvers:
            role = approver.removeprefix(ROLE)
            if approver.startswith(ROLE) and role not in known:
                near = difflib.get_close_matches(role, known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else "List its users under `[tenants.<tenant>.roles]`."
                raise ConfigurationError(
                    f"{where}: names {approver!r}, a role that {self._path} gives to nobody. {hint}"
                )

    def _tenant(self, tenant: str) -> TenantPeople:
        return self._now().tenants.get(tenant) or TenantPeople()

    def _now(self) -> PeopleFile:
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return self._file
        # Looked at before it is read: what is written in between is found by the next look.
        self._seen = stamp
        try:
            self._file, problem = _read(self._path), ""
        except ConfigurationError as error:
            self._file, problem = PeopleFile(), str(error)
        if problem and problem != self._problem:
            logger.error("%s Until it is mended, nobody has a role or an address.", problem)
        self._problem = problem
        return self._file


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Tells one state of a file from another."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0, 0
    # A file can change twice within the resolution of its clock, so one that changed just now is read again each time.
    fresh = time.time_ns() - found.st_mtime_ns < FRESH_NS
    return found.st_mtime_ns, found.st_size, found.st_ino, time.monotonic_ns() if fresh else 0


def _read(path: Path) -> PeopleFile:
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return PeopleFile()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}.") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from None
    tables = given.pop("tenants", {})
    if given or not isinstance(tables, dict):
        raise ConfigurationError(f"{path}: holds something else than `[tenants.<tenant>.roles]` and `.emails`.")
    tenants: dict[str, TenantPeople] = {}
    for tenant, table in tables.items():
        try:
            tenants[tenant] = TenantPeople.model_validate(table)
        except ValidationError as error:
            where = f"tenants.{tenant}."
            raise ConfigurationError(f"{path}: {describe(error, TenantPeople, where)}") from None
    return PeopleFile(tenants=tenants)
