"""A client that does what the documentation asks of one: repeats every call under its key until it is answered."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

POLL_SECONDS = 0.05


@dataclass
class Client:
    """One request on its way, and the person who approves its answer."""

    http: httpx.AsyncClient
    agent: str
    question: str
    key: str
    limits: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    """Known once the request is accepted."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has seen that the answer waits for a person."""
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    """The person's decision was taken."""
    may_decide: asyncio.Event = field(default_factory=asyncio.Event)
    """The person takes no decision before this is set."""

    async def walk(self) -> dict[str, Any]:
        """Submit, approve as `ann` when asked, and return the request when it has ended."""
        reply = await self.submit()
        self.request_id = reply["id"]
        self.accepted.set()
        while reply["status"] in ("running", "waiting"):
            if reply["status"] == "waiting" and not self.decided.is_set():
                self.waiting.set()
                await self.may_decide.wait()
                await self._approve(reply["approval"]["content_sha256"])
                self.decided.set()
            reply = await self.submit(wait=20)
            assert reply["id"] == self.request_id, "the same key must give the same request"
            if reply["status"] == "waiting":
                await asyncio.sleep(POLL_SECONDS)
        return reply

    async def submit(self, *, wait: int = 0) -> dict[str, Any]:
        """Post the request, always under the same key."""
        body = {"agent": self.agent, "input": self.question, "limits": self.limits}
        return await self._insist(f"/v1/requests?wait={wait}", body, self.key, "local")

    async def _approve(self, content_sha256: str) -> None:
        body = {"decision": "approve", "content_sha256": content_sha256}
        await self._insist(f"/v1/approvals/{self.request_id}/decisions", body, f"{self.key}-decision", "ann")

    async def _insist(self, path: str, body: Mapping[str, Any], key: str, user: str) -> dict[str, Any]:
        headers = {"Idempotency-Key": key, "X-Holdfast-User": user}
        while True:
            try:
                reply = await self.http.post(path, json=body, headers=headers)
            except httpx.TransportError:
                pass  # the gateway is dead
            else:
                assert reply.status_code in (200, 202, 503), reply.text
                if reply.status_code != 503:
                    return dict(reply.json())
            await asyncio.sleep(POLL_SECONDS)
