"""The limiter of all workers together, in Redis.

Every operation is one script, so that it happens as a whole, and the time is the server's, so that workers need not
agree on theirs. Without Redis nothing is let through: a limit that cannot be counted is not kept.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from redis.commands.core import AsyncScript

from holdfast.limits import scripts
from holdfast.limits.protocol import Admitted, Dimension, Scope, Wait
from holdfast.limits.window import Timing, distinct, limits_for
from holdfast.redis_server import answering, connect

_DIMENSIONS = (Dimension.REQUESTS, Dimension.TOKENS, Dimension.CONCURRENCY)
_WHAT = "The limiter cannot count, so nothing is sent"


class RedisLimiter:
    """Keeps the limits of calls that leave from many processes.

    Args:
        url: The server, e.g. `redis://127.0.0.1:6379/0`.
        prefix: Before every key; installations that share a server differ in it.
        window: What the limits per minute are measured over. Shorter is smoother, and leaves less room for large calls.
        slot_ttl: After this long a concurrency slot that is neither renewed nor settled is free again.
        lapse: How long after its moment a ticket may come back to its place.
        clock: Lua that sets `now` to the microseconds of the clock to go by.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        window: timedelta = timedelta(minutes=1),
        slot_ttl: timedelta = timedelta(minutes=1),
        lapse: timedelta = timedelta(seconds=30),
        clock: str = scripts.SERVER_CLOCK,
    ) -> None:
        self._url = url
        # In braces, all keys lie in the same slot of a cluster, which a script needs.
        self._prefix = f"{{{prefix}:limits}}"
        self._timing = timing = Timing.of(window, slot_ttl, lapse)
        longest_us = 2 * (timing.window + timing.call_ttl + timing.lapse)
        self._spans = [
            *(timing.window, timing.bucket, timing.look, timing.slot_ttl, timing.lapse, timing.call_ttl),
            longest_us // 1_000 + 60_000,
        ]
        self._redis = connect(url)
        self._admit = self._redis.register_script(clock + scripts.ADMIT)
        self._settle = self._redis.register_script(clock + scripts.SETTLE)
        self._renew = self._redis.register_script(clock + scripts.RENEW)
        self._withdraw = self._redis.register_script(clock + scripts.WITHDRAW)

    async def admit(self, ticket: str, scopes: Sequence[Scope], tokens: int) -> Admitted | Wait:
        """Take what a call needs in every scope, or a place in line."""
        limited = distinct(scopes)
        if not limited:
            return Admitted(ticket, "", (), tokens, 0)
        bounds: list[int] = []
        for scope in limited:
            limits = limits_for(scope, self._timing, tokens)
            bounds += [-1 if limit is None else limit for limit in (limits.requests, limits.tokens, limits.slots)]
        call = uuid.uuid4().hex
        answer = await self._run(self._admit, call, limited, [ticket, tokens, *bounds])
        if answer[0] == 1:
            return Admitted(ticket, call, limited, tokens, answer[1])
        _, wait, turn, scope_number, dimension_number = answer
        return Wait(
            duration=timedelta(microseconds=wait),
            scope=limited[scope_number - 1].key,
            dimension=_DIMENSIONS[dimension_number - 1],
            turn=timedelta(microseconds=turn),
        )

    async def settle(self, admitted: Admitted, actual_tokens: int | None) -> None:
        """Free the slots and correct the tokens; a second time does nothing."""
        if admitted.scopes:
            counting = [int(scope.tokens_per_minute is not None) for scope in admitted.scopes]
            actual = -1 if actual_tokens is None else actual_tokens
            amounts = [admitted.tokens, actual, admitted.at, *counting]
            await self._run(self._settle, admitted.call, admitted.scopes, amounts)

    async def renew(self, admitted: Admitted) -> None:
        """Keep the slots of a call that is still running."""
        slots = [int(scope.concurrency is not None) for scope in admitted.scopes]
        if any(slots):
            await self._run(self._renew, admitted.call, admitted.scopes, slots)

    async def withdraw(self, ticket: str, scopes: Sequence[Scope]) -> None:
        """Give a place in line back at once."""
        limited = distinct(scopes)
        if limited:
            await self._run(self._withdraw, "", limited, [ticket])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _run(
        self, script: AsyncScript, call: str, scopes: Sequence[Scope], arguments: Sequence[int | str]
    ) -> list[int]:
        keys = [f"{self._prefix}:call:{call}", f"{self._prefix}:numbers"]
        for scope in scopes:
            keys += [f"{self._prefix}:{kind}:{scope.key}" for kind in "wlzs"]
        with answering(_WHAT, self._url):
            answer: list[int] = await script(keys=keys, args=[*self._spans, *arguments])
        return answer
