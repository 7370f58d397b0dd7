"""The gateway's HTTP API as the command line uses it: no verb for a running Holdfast needs the engine's SDK."""

import getpass
import ipaddress
import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote as percent_encode

import httpx

from cli.output import UNREACHABLE, USAGE, Problem
from cli.remedies import in_commands

DEFAULT_URL = "http://127.0.0.1:8080"
LONGEST_POLL_SECONDS = 20.0
"""One held request; a longer wait is several, so that no proxy between cuts it."""
ANSWER_SECONDS = 30.0
"""Silence after which the gateway is taken for dead, on top of the wait it was asked for."""

CONNECT_SECONDS = 5.0
LONGEST_INGESTION_SECONDS = 600.0
"""The gateway waits for an ingestion up to its `gateway.max_wait`, or ten minutes if that is longer."""
INGESTION_POLL_SECONDS = 1.0

Query = Mapping[str, str | int]

Document = dict[str, Any]
"""A JSON object as the gateway sent it; printed as it came with `--json`."""


class GatewayClient:
    """Talks to one gateway as one user.

    Args:
        url: Base address; empty for `HOLDFAST_URL`, or the default.
        user: Name to act under while the gateway runs without API keys; empty for `HOLDFAST_USER`, or the login name.
        api_key: Key to present; empty for `HOLDFAST_API_KEY`. With a key, the key says who acts.
        transport: Stands in for the network in tests.
    """

    def __init__(
        self,
        url: str = "",
        user: str = "",
        api_key: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = (url or os.environ.get("HOLDFAST_URL") or DEFAULT_URL).rstrip("/")
        api_key = api_key or os.environ.get("HOLDFAST_API_KEY", "")
        self.said_user = "" if api_key else user
        """The user that was named on the command line, and so has to be named again on the next one."""
        self.user = user or os.environ.get("HOLDFAST_USER") or _login_name()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {"X-Holdfast-User": self.user}
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers,
                transport=transport,
                # A proxy of the environment cannot reach this machine's loopback.
                trust_env=not _is_loopback(httpx.URL(self.url).host),
            )
        except UnicodeEncodeError:
            raise Problem(
                "The user name or API key holds characters that an HTTP header cannot carry.",
                remedy="Use ASCII in --user or HOLDFAST_USER, and in HOLDFAST_API_KEY.",
                exit_code=USAGE,
            ) from None
        except httpx.InvalidURL as error:
            raise _bad_url(self.url, str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(
        self,
        agent: str,
        question: str,
        *,
        key: str = "",
        session: str = "",
        wait: float = 0,
        batch: bool = False,
    ) -> Document:
        """Ask an agent.

        Without a key one is made up, so that the repetition after a broken connection cannot ask twice.

        Args:
            key: Idempotency key.
            session: Conversation the question belongs to.
            wait: Seconds to wait for an end or for a question to people.
            batch: Whether the answer may take hours and should cost less.
        """
        body: dict[str, object] = {"agent": agent, "input": question}
        body |= ({"session": session} if session else {}) | ({"batch": True} if batch else {})
        first = min(wait, LONGEST_POLL_SECONDS)
        document = self._once("/v1/requests", body, key=key, query=_waiting(first), held=first)
        return self._until_settled(document, wait - first)

    def request(self, request_id: str, *, wait: float = 0, progress: bool = False) -> Document:
        """One request, once it has ended or waits for people, or after `wait` seconds.

        Args:
            progress: Include the steps taken so far.
        """
        query = {"progress": "true"} if progress else {}
        first = min(wait, LONGEST_POLL_SECONDS)
        document = self._read(request_id, first, query)
        return self._until_settled(document, wait - first, query)

    def _until_settled(self, document: Document, wait: float, query: Query | None = None) -> Document:
        while document["status"] == "running" and wait > 0:
            held = min(wait, LONGEST_POLL_SECONDS)
            document = self._read(document["id"], held, query or {})
            wait -= held
        return document

    def _read(self, request_id: str, wait: float, query: Query) -> Document:
        with self._about(request_id):
            path = f"/v1/requests/{_segment(request_id)}"
            return self._call("GET", path, query={**query, **_waiting(wait)}, held=wait)

    def requests(self, query: Query) -> Document:
        """The tenant's requests, the latest first."""
        return self._call("GET", "/v1/requests", query=query)

    def cancel(self, request_id: str) -> Document:
        """Ask a request to stop."""
        with self._about(request_id):
            return self._call("POST", f"/v1/requests/{_segment(request_id)}/cancel")

    def approvals(self) -> list[Document]:
        """Open questions that the caller may see."""
        found: list[Document] = self._call("GET", "/v1/approvals")["approvals"]
        return found

    def approval(self, request_id: str) -> Document:
        """A request's open question, with what was called before it."""
        with self._about(request_id):
            return self._call("GET", f"/v1/approvals/{_segment(request_id)}")

    def approval_history(self, query: Query) -> list[Document]:
        """What happened to the tenant's approvals, the latest first."""
        found: list[Document] = self._call("GET", "/v1/approvals/history", query=query)["events"]
        return found

    def decide(
        self,
        request_id: str,
        decision: str,
        content_sha256: str,
        *,
        payload: str | None = None,
        reason: str | None = None,
        round_number: int | None = None,
    ) -> Document:
        """Decide on exactly the content that the digest names, and on that question of the request."""
        body = {
            "decision": decision,
            "content_sha256": content_sha256,
            "payload": payload,
            "reason": reason,
            "round": round_number,
        }
        with self._about(request_id):
            return self._once(
                f"/v1/approvals/{_segment(request_id)}/decisions",
                {name: value for name, value in body.items() if value is not None},
            )

    def ingest(self, collection: str, documents: Sequence[Mapping[str, str]]) -> Document:
        """Index documents, replacing earlier texts of the same sources; returns when that is done or has failed."""
        path = f"/v1/collections/{_segment(collection)}/documents"
        document = self._once(path, {"documents": documents}, held=LONGEST_INGESTION_SECONDS)
        while document["status"] == "running":
            time.sleep(INGESTION_POLL_SECONDS)
            document = self._call("GET", f"/v1/ingestions/{_segment(document['id'])}")
        return document

    def readiness(self) -> Document:
        """What `/readyz` says.

        Raises:
            Problem: Not ready, with what is missing.
        """
        return self._call("GET", "/readyz")

    def command(self, *words: str, user: str | None = None) -> str:
        """A command line that reaches the same gateway, as the same user or as another."""
        where = [] if self.url == DEFAULT_URL else ["--url", self.url]
        name = self.said_user if user is None else user
        who = ["--user", name] if name else []
        return shlex.join([_program(), *words, *who, *where])

    @property
    def repeats_user(self) -> bool:
        """Whether a command of `command` acts under the same name as this client, and no key says who acts."""
        named = self.said_user or os.environ.get("HOLDFAST_USER") or _login_name()
        return named == self.user and "Authorization" not in self._http.headers

    @property
    def called(self) -> str:
        """How the caller is called, for a person: the user's name, or that a key stands for it."""
        return "the user of your API key" if "Authorization" in self._http.headers else self.user

    @contextmanager
    def _about(self, request_id: str) -> Iterator[None]:
        """A call about one request: what is wrong with it is told with the command that helps."""
        try:
            yield
        except Problem as problem:
            raise in_commands(problem, request_id, self.command) from None

    def _once(self, path: str, body: object, *, key: str = "", query: Query | None = None, held: float = 0) -> Document:
        """Post under an idempotency key, so that a repetition after a broken connection does nothing twice."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        try:
            return self._call("POST", path, json=body, headers=headers, query=query, held=held)
        except ConnectionLost:
            return self._call("POST", path, json=body, headers=headers, query=query, held=held)

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        query: Query | None = None,
        held: float = 0,
    ) -> Document:
        """Call the gateway; `held` is how many seconds it may keep the request open on purpose."""
        timeout = httpx.Timeout(ANSWER_SECONDS + held, connect=CONNECT_SECONDS)
        try:
            response = self._http.request(method, path, json=json, headers=headers, params=query, timeout=timeout)
        except UnicodeEncodeError:
            raise Problem(
                "The text or a header is not valid: it cannot be sent as UTF-8, or as ASCII in a header.",
                remedy="Convert the text, e.g. with `iconv -t UTF-8`; write keys and user names in ASCII.",
            ) from None
        except httpx.UnsupportedProtocol as error:
            raise _bad_url(self.url, str(error)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Problem(
                f"The gateway at {self.url} does not answer: {error}.",
                remedy="Start it with `holdfast dev`, or name another with --url or HOLDFAST_URL.",
                exit_code=UNREACHABLE,
            ) from None
        except httpx.TransportError as error:
            cause = str(error) or type(error).__name__
            raise ConnectionLost(
                f"The connection to the gateway at {self.url} broke before it answered: {cause}.",
                remedy="Nothing accepted is lost: look with `holdfast requests list`, then `holdfast doctor`.",
                exit_code=UNREACHABLE,
            ) from None
        return _document(response)


class ConnectionLost(Problem):
    """The request was sent, and no answer came; whether it was accepted is unknown."""


def _document(response: httpx.Response) -> Document:
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.is_success and isinstance(document, dict):
        return document
    if not isinstance(document, dict) or "detail" not in document:
        raise Problem(
            f"{response.url} answered {response.status_code} without a Holdfast document.",
            remedy="Check that the address is a Holdfast gateway: `holdfast doctor`.",
            members={"status": response.status_code},
        )
    known = {name: value for name, value in document.items() if name not in ("detail", "remedy")}
    raise Problem(
        str(document["detail"]),
        remedy=str(document.get("remedy") or ""),
        members={"status": response.status_code} | known,
    )


def _bad_url(url: str, why: str) -> Problem:
    return Problem(
        f"{url!r} is not a gateway's address: {why}",
        remedy=f"Write it like {DEFAULT_URL} (--url or HOLDFAST_URL).",
        exit_code=USAGE,
    )


def _waiting(seconds: float) -> dict[str, str]:
    return {"wait": f"{seconds:g}"} if seconds > 0 else {}


def _segment(name: str) -> str:
    return percent_encode(name, safe="")


def _program() -> str:
    """How this shell can start the command: by its name, or by its path while the environment is not activated."""
    here = Path(sys.prefix) / "bin" / "holdfast"
    found = shutil.which("holdfast")
    if (found and Path(found).resolve() == here.resolve()) or not here.exists():
        return "holdfast"
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user id without an account
        return "local"
    return name if name.isascii() and name.isprintable() else "local"
