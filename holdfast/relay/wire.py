"""How a stream lies in Redis: one Redis stream for each request, whose entry ids are positions.

The id of an entry is `attempt-step`, where the step is twice the offset at which the entry ends, plus one if it ends
the attempt. Redis refuses ids that do not grow, so a repeated event and a late event of a superseded attempt cannot
be stored, whoever sends them; and what a follower has not had is what lies after its own position.

Each entry has one field, the event as it is also published to those who listen: `t2:17:some text`.
"""

from typing import Final, NamedTuple

from holdfast.contracts import StreamEvent, StreamKind
from holdfast.relay.cursor import Cursor

FIELD: Final = b"e"
CLOSED: Final = b"c"
"""The last entry of a closed request."""
CLOSED_ATTEMPT: Final = 2**53 - 1
"""Above every ordinal, so that nothing can follow, and the largest integer that Lua keeps exact."""

_LETTERS: Final[dict[StreamKind, bytes]] = {"began": b"b", "text": b"t", "ended": b"e", "failed": b"f"}
_KINDS: Final[dict[bytes, StreamKind]] = {letter: kind for kind, letter in _LETTERS.items()}

# One script appends what one request has waiting, so that looking at the highest attempt and adding to it is one act.
# KEYS: the stream, also the channel. ARGV: milliseconds to live, most characters to keep, then attempt, step and entry
# of each event.
APPEND: Final = """
local key, bound, added = KEYS[1], tonumber(ARGV[2]), 0
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local attempt, step = 0, 0
if last then
  local a, s = string.match(last[1], '(%d+)-(%d+)')
  attempt, step = tonumber(a), tonumber(s)
end
for i = 3, #ARGV, 3 do
  local a, s = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if a > attempt or (a == attempt and s > step) then
    if attempt > 0 and a > attempt and a < CLOSED_ATTEMPT then redis.call('XTRIM', key, 'MAXLEN', 0) end
    redis.call('XADD', key, ARGV[i] .. '-' .. ARGV[i + 1], 'e', ARGV[i + 2])
    redis.call('PUBLISH', key, ARGV[i + 2])
    attempt, step, added = a, s, added + 1
  end
end
if added == 0 then return 0 end
redis.call('PEXPIRE', key, ARGV[1])
local length = math.floor(step / 2)
while attempt < CLOSED_ATTEMPT and length > bound do
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  local offset = tonumber(string.match(first[2][2], '^%a%d+:(%d+):'))
  local entries = redis.call('XLEN', key)
  if length - offset <= bound or entries == 1 then break end
  redis.call('XTRIM', key, 'MAXLEN', math.floor(entries / 2))
end
return added
""".replace("CLOSED_ATTEMPT", str(CLOSED_ATTEMPT))


class Entry(NamedTuple):
    """What the script is given for one event."""

    attempt: int
    step: int
    payload: bytes


CLOSING: Final = Entry(CLOSED_ATTEMPT, 0, CLOSED)


def entry(attempt: int, offset: int, kind: StreamKind, text: str = "") -> Entry:
    """An event as it is stored."""
    step = 2 * (offset + len(text)) + (kind in ("ended", "failed"))
    # Deltas may cut a surrogate pair that JSON spelled as two escapes.
    return Entry(
        attempt, step, b"%b%d:%d:%b" % (_LETTERS[kind], attempt, offset, text.encode("utf-8", "surrogatepass"))
    )


def event(request_id: str, payload: bytes) -> StreamEvent | None:
    """The event of a stored or published payload; `None` for the closing one."""
    if payload == CLOSED:
        return None
    head, offset, text = payload.split(b":", 2)
    return StreamEvent(
        request_id=request_id,
        attempt=int(head[1:]),
        offset=int(offset),
        kind=_KINDS[head[:1]],
        text=text.decode("utf-8", "surrogatepass"),
    )


def after(cursor: Cursor) -> str:
    """The exclusive start of the range of entries that a follower has not had."""
    return f"({cursor.attempt}-{2 * cursor.offset + cursor.ended}"
