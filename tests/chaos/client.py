"""A client that does what the documentation asks of one: repeats a call that is not answered, under the same key."""

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
    batch: bool = False
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
        """Submit, approve as `ann` when asked, and return the request when it has ended.

        Once the request is accepted it is only read: posting it again would cover up that it was lost.
        """
        reply = await self.submit()
        self.request_id = reply["id"]
        self.accepted.set()
        while reply["status"] in ("running", "waiting"):
            if reply["status"] == "waiting" and not self.decided.is_set():
                self.waiting.set()
                await self.may_decide.wait()
                await self._approve(reply["approval"]["content_sha256"])
                self.decided.set()
            reply = await self._insist("GET", f"/v1/requests/{self.request_id}?wait=20")
            if reply["status"] == "waiting":
                await asyncio.sleep(POLL_SECONDS)
        return reply

    async def submit(self) -> dict[str, Any]:
        """Post the request, always under the same key."""
        body: dict[str, Any] = {"agent": self.agent, "input": self.question, "limits": self.limits}
        body |= {"batch": True} if self.batch else {}
        return await self._insist("POST", "/v1/requests", body, key=self.key)

    async def _approve(self, content_sha256: str) -> None:
        path, body = f"/v1/approvals/{self.request_id}/decisions", {"decision": "approve"}
        await self._insist(
            "POST", path, body | {"content_sha256": content_sha256}, key=f"{self.key}-decision", user="ann"
        )

    async def _insist(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str = "", user: str = "local"
    ) -> dict[str, Any]:
        headers = {"X-Holdfast-User": user} | ({"Idempotency-Key": key} if key else {})
        while True:
            try:
                reply = await self.http.request(method, path, json=body, headers=headers)
            except httpx.TransportError:
                pass  # the gateway is dead
            else:
                assert reply.status_code in (200, 202, 503), reply.text
                if reply.status_code != 503:
                    return dict(reply.json())
            await asyncio.sleep(POLL_SECONDS)
