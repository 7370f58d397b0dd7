"""The health of deployments as all workers see it together, in Redis.

Of each key there is one value, breaker and speed together. It is read, changed by the pure reducer, and written back by
a script that does so only if nobody else has in the meantime; otherwise the change is made again on what is there now.
So the rules are in one place, and of several workers that would send a probe one succeeds. The time is the server's.

Calls in flight are counted by each process for itself and published; the numbers of dead processes are forgotten.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError

from holdfast.breaker import DEFAULT, BreakerPolicy, Ruling, Verdict, admit
from holdfast.errors import Outcome, Unavailable
from holdfast.health.protocol import Admission, Condition
from holdfast.health.vitals import Report, Vitals, from_text, to_text
from holdfast.redis_server import answering, connect

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
PROCESS_FORGOTTEN_AFTER = timedelta(minutes=5)
SERVER_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
"""Sets `now`, in microseconds. Tests put a clock of their own in its place."""
READ = """
local answer = {string.format('%.0f', now)}
for number = 1, #KEYS / 2 do
  answer[#answer + 1] = redis.call('GET', KEYS[2 * number - 1]) or ''
  local in_flight, processes = 0, redis.call('HGETALL', KEYS[2 * number])
  for at = 1, #processes, 2 do
    local count, said = string.match(processes[at + 1], '(%d+) (%d+)')
    if tonumber(said) + tonumber(ARGV[1]) > now then
      in_flight = in_flight + tonumber(count)
    else
      redis.call('HDEL', KEYS[2 * number], processes[at])
    end
  end
  answer[#answer + 1] = tostring(in_flight)
end
return answer
"""
"""KEYS: value and processes of each key. Returns the time, then value and calls in flight of each key."""
REPLACE = """
local present = redis.call('GET', KEYS[1]) or ''
if present ~= ARGV[1] then return {0, string.format('%.0f', now), present} end
if ARGV[2] ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5] .. ' ' .. string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return {1, string.format('%.0f', now), ''}
"""
"""KEYS: value and processes. ARGV: old value, new value, its life, this process, its calls in flight, their life."""
_WHAT = "The health of deployments cannot be read, so nothing is sent"


class RedisHealth:
    """Keeps breakers and speeds for all processes that share a server and a prefix.

    Args:
        url: The server, e.g. `redis://127.0.0.1:6379/0`.
        prefix: Before every key; installations that share a server differ in it.
        policy: When a breaker opens and for how long.
        clock: Lua that sets `now` to the microseconds of the clock to go by.
    """

    def __init__(self, url: str, prefix: str, policy: BreakerPolicy = DEFAULT, *, clock: str = SERVER_CLOCK) -> None:
        self._url = url
        self._prefix = f"{{{prefix}:health}}"
        self._policy = policy
        self._process = uuid.uuid4().hex
        self._in_flight: Counter[str] = Counter()
        self._known: dict[str, tuple[float, Condition]] = {}
        # Within a process changes of a key go one after the other; only other processes can come between.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed_at = float("-inf")
        self._redis = connect(url)
        self._read = self._redis.register_script(clock + READ)
        self._replace = self._redis.register_script(clock + REPLACE)

    async def admit(self, key: str, *, sole: bool = False) -> Admission:
        """Whether a call may go."""
        ruling = Ruling(Verdict.REFUSE)

        def change(vitals: Vitals, now: datetime) -> tuple[Vitals, int]:
            nonlocal ruling
            breaker, ruling = admit(vitals.breaker, now, self._policy, sole=sole)
            return replace(vitals, breaker=breaker), int(ruling.verdict is not Verdict.REFUSE)

        with answering(_WHAT, self._url):
            await self._change(key, change)
        return Admission(ruling.verdict, ruling.until, ruling.cause)

    async def record(
        self,
        key: str,
        outcome: Outcome,
        *,
        first_token: timedelta | None,
        duration: timedelta | None,
        output_tokens: int = 0,
        retry_after: timedelta | None = None,
        timed_out: bool = False,
    ) -> None:
        """How an admitted call ended; logged when Redis does not answer, and then not counted."""
        report = Report(outcome, first_token, duration, output_tokens, retry_after, timed_out)

        def change(vitals: Vitals, now: datetime) -> tuple[Vitals, int]:
            return vitals.after(report, now, self._policy), 0

        # First, so that a cancellation on the way to Redis leaves no call in flight for ever.
        self._in_flight[key] = max(0, self._in_flight[key] - 1)
        try:
            with answering("The outcome of a call is not counted", self._url):
                await self._change(key, change)
        except Unavailable as error:
            log.warning("%s", error)

    async def look(self, keys: Sequence[str]) -> dict[str, Condition]:
        """What is known, at most a second old; what was last known when Redis does not answer."""
        moment = time.monotonic()
        stale = [key for key in keys if key not in self._known or moment - self._known[key][0] > FRESH_SECONDS]
        if stale:
            try:
                with answering("The health of deployments is as last known", self._url):
                    now, values = await self._values(stale)
            except Unavailable as error:
                log.warning("%s", error)
                # Asked again no sooner than if it had answered.
                for key in stale:
                    self._known[key] = (moment, self._known.get(key, (moment, Condition()))[1])
            else:
                for key, (text, in_flight) in zip(stale, values, strict=True):
                    self._known[key] = (moment, _vitals(text).condition(now, in_flight))
        return {key: self._known[key][1] for key in keys}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _change(self, key: str, change: Callable[[Vitals, datetime], tuple[Vitals, int]]) -> None:
        asked = time.monotonic()
        async with self._turns[key]:
            if self._failed_at >= asked:
                # Otherwise everyone in turn would wait for the same silent server.
                raise ConnectionFailed("it did not answer a moment ago")
            try:
                await self._change_now(key, change)
            except (RedisError, OSError):
                self._failed_at = time.monotonic()
                raise

    async def _change_now(self, key: str, change: Callable[[Vitals, datetime], tuple[Vitals, int]]) -> None:
        now, ((old, _),) = await self._values([key])
        while True:
            vitals, calls = change(_vitals(old), now)
            in_flight = self._in_flight[key] + calls
            new = to_text(vitals)
            life = vitals.kept_for(now) // timedelta(milliseconds=1)
            done, moment, present = await self._replace(
                keys=self._keys(key),
                args=[
                    old,
                    new,
                    life,
                    self._process,
                    in_flight,
                    PROCESS_FORGOTTEN_AFTER // timedelta(milliseconds=1),
                ],
            )
            if done:
                self._in_flight[key] += calls
                return
            old, now = present, _time(moment)

    async def _values(self, keys: Sequence[str]) -> tuple[datetime, list[tuple[str, int]]]:
        names = [name for key in keys for name in self._keys(key)]
        forgotten = PROCESS_FORGOTTEN_AFTER // timedelta(microseconds=1)
        answer: list[str] = await self._read(keys=names, args=[forgotten])
        return _time(answer[0]), [(text, int(count)) for text, count in zip(answer[1::2], answer[2::2], strict=True)]

    def _keys(self, key: str) -> tuple[str, str]:
        return f"{self._prefix}:vitals:{key}", f"{self._prefix}:in_flight:{key}"


def _time(microseconds: str) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))


def _vitals(text: str) -> Vitals:
    try:
        return from_text(text)
    except ValidationError:
        # Written by another version: what it knew is learned anew within a minute.
        return Vitals()
