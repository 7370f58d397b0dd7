"""The limiter's operations as Lua, each one script that Redis runs as a whole, on the server's own clock.

They do what `holdfast/limits/window.py` does and are to be read beside it. Of each scope there are four keys: `w`, the
window's buckets and sums; `l`, the line; `z`, when whose place lapses; `s`, the slots by when they free themselves.
Before them come the call's own key, so that settling happens once, and the counter of numbers.
"""

from holdfast.limits.window import BUCKETS, CHUNK, FIRST_HOLD_US, LEAST_WAIT_US, WHOLE

SERVER_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
"""Sets `now`, in microseconds. Tests put a clock of their own in its place."""

_SHARED = (
    f"""
local BUCKETS, CHUNK, WHOLE, FIRST_HOLD, LEAST_WAIT = {BUCKETS}, {CHUNK}, {WHOLE}, {FIRST_HOLD_US}, {LEAST_WAIT_US}
"""
    + """
local window_us, bucket_us, look_us = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local slot_ttl_us, lapse_us, call_ttl_us = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local keys_ttl_ms = tonumber(ARGV[7])
local floor, max, min = math.floor, math.max, math.min
local bucket = floor(now / bucket_us)

local function text(whole) return string.format('%.0f', whole) end
local function number(value) return tonumber(value) or 0 end

local function keys_of(scope)
  local first = 2 + (scope - 1) * 4
  return {w = KEYS[first + 1], l = KEYS[first + 2], z = KEYS[first + 3], s = KEYS[first + 4]}
end

local function keep(key) redis.call('PEXPIRE', key, keys_ttl_ms) end

local function series(prefix, from, upto)
  local fields = {}
  for i = from, upto do fields[#fields + 1] = prefix .. text(i) end
  return fields
end

local function sum(key, prefix, from, upto)
  local total, present = 0, 0
  for start = from, upto, 1000 do
    for _, value in ipairs(redis.call('HMGET', key, unpack(series(prefix, start, min(upto, start + 999))))) do
      if value then total = total + value; present = present + 1 end
    end
  end
  return total, present
end

local function advance_window(w)
  local oldest = tonumber(redis.call('HGET', w, 'oldest'))
  local past = bucket - BUCKETS - 1
  if not oldest or oldest > past then return end
  local upto = min(past, oldest + BUCKETS)
  for _, kind in ipairs({'r', 't'}) do
    local gone, present = sum(w, kind .. ':', oldest, upto)
    if present > 0 then
      redis.call('HINCRBY', w, kind, 0 - gone)
      redis.call('HDEL', w, unpack(series(kind .. ':', oldest, upto)))
    end
  end
  redis.call('HSET', w, 'oldest', text(past + 1))
end

local function count(w, kind, where, amount)
  redis.call('HSETNX', w, 'oldest', text(bucket))
  redis.call('HINCRBY', w, kind .. ':' .. text(where), amount)
  redis.call('HINCRBY', w, kind, amount)
end

local function turn_of(w, kind, short, limit)
  local rounds = floor((short - 1) / limit)
  local rest = short - rounds * limit
  local period = (BUCKETS + 1) * bucket_us
  local first = bucket - BUCKETS
  for i, amount in ipairs(redis.call('HMGET', w, unpack(series(kind .. ':', first, bucket)))) do
    rest = rest - number(amount)
    if rest <= 0 then return rounds * period + (first + i - 1 + BUCKETS + 1) * bucket_us - now end
  end
  return rounds * period + period
end

local function leave(keys, ticket)
  local place = tonumber(redis.call('HGET', keys.l, 'p:' .. ticket))
  if not place then return end
  local need = 'n:' .. text(place)
  local tokens = number(redis.call('HGET', keys.l, need))
  redis.call('HDEL', keys.l, 'p:' .. ticket, need)
  redis.call('ZREM', keys.z, ticket)
  local chunk = text(floor(place / CHUNK))
  if redis.call('HINCRBY', keys.l, 'c:' .. chunk, -1) == 0 then
    redis.call('HDEL', keys.l, 'c:' .. chunk, 't:' .. chunk)
  else
    redis.call('HINCRBY', keys.l, 't:' .. chunk, 0 - tokens)
  end
  redis.call('HINCRBY', keys.l, 'people', -1)
  redis.call('HINCRBY', keys.l, 'tokens', 0 - tokens)
end

local function join(keys, ticket, place, tokens)
  if redis.call('HSETNX', keys.l, 'p:' .. ticket, text(place)) == 0 then return end
  redis.call('HSET', keys.l, 'n:' .. text(place), tokens)
  local chunk = floor(place / CHUNK)
  redis.call('HINCRBY', keys.l, 'c:' .. text(chunk), 1)
  redis.call('HINCRBY', keys.l, 't:' .. text(chunk), tokens)
  redis.call('HINCRBY', keys.l, 'tokens', tokens)
  local first = redis.call('HGET', keys.l, 'first')
  if redis.call('HINCRBY', keys.l, 'people', 1) == 1 or chunk < number(first) then
    redis.call('HSET', keys.l, 'first', text(chunk))
  end
end

local function ahead(keys, place)
  local line = redis.call('HMGET', keys.l, 'people', 'tokens', 'first')
  local people, tokens, first = number(line[1]), number(line[2]), number(line[3])
  if not place or people == 0 then return people, tokens end
  local chunk = floor(place / CHUNK)
  local start = first
  while first < chunk and redis.call('HEXISTS', keys.l, 'c:' .. text(first)) == 0 do first = first + 1 end
  if first > start then redis.call('HSET', keys.l, 'first', text(first)) end
  local chunk_people, chunk_tokens = sum(keys.l, 'c:', first, chunk - 1), sum(keys.l, 't:', first, chunk - 1)
  local near_tokens, near_people = sum(keys.l, 'n:', chunk * CHUNK, place - 1)
  return chunk_people + near_people, chunk_tokens + near_tokens
end
"""
)

ADMIT = (
    _SHARED
    + """
local ticket, tokens, scopes = ARGV[8], tonumber(ARGV[9]), (#ARGV - 9) / 3
local refused, worst_turn, worst_scope, worst_dimension, place = {}, -1, 0, 0, nil

-- First pass: is there room in every scope?
for scope = 1, scopes do
  local keys = keys_of(scope)
  for _, lapsed in ipairs(redis.call('ZRANGEBYSCORE', keys.z, '-inf', text(now))) do leave(keys, lapsed) end
  place = tonumber(redis.call('HGET', keys.l, 'p:' .. ticket)) or place
end
for scope = 1, scopes do
  local keys = keys_of(scope)
  local at = 9 + (scope - 1) * 3
  local requests_limit, tokens_limit = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local slots_limit = tonumber(ARGV[at + 3])
  advance_window(keys.w)
  local people_ahead, tokens_ahead = ahead(keys, place)
  local counts = redis.call('HMGET', keys.w, 'r', 't', 'share', 'hold')
  local turn, dimension = -1, 0
  if requests_limit >= 0 then
    local short = people_ahead + 1 + number(counts[1]) - requests_limit
    if short > 0 then turn, dimension = turn_of(keys.w, 'r', short, requests_limit), 1 end
  end
  if tokens_limit >= 0 then
    local short = tokens_ahead + tokens + number(counts[2]) - tokens_limit
    if short > 0 then
      local likely = max(1, floor(short * (tonumber(counts[3]) or WHOLE) / WHOLE))
      local tokens_turn = turn_of(keys.w, 't', likely, tokens_limit)
      if tokens_turn > turn then turn, dimension = tokens_turn, 2 end
    end
  end
  if slots_limit >= 0 then
    redis.call('ZREMRANGEBYSCORE', keys.s, '-inf', text(now))
    local short = people_ahead + 1 + redis.call('ZCARD', keys.s) - slots_limit
    if short > 0 then
      local slots_turn = floor((tonumber(counts[4]) or FIRST_HOLD) * short / slots_limit)
      if slots_turn > turn then turn, dimension = slots_turn, 3 end
    end
  end
  if dimension > 0 then refused[scope] = {turn, dimension} end
end

-- Second pass: take everything, or a place in line.
if not next(refused) then
  for scope = 1, scopes do
    local keys = keys_of(scope)
    local at = 9 + (scope - 1) * 3
    leave(keys, ticket)
    if tonumber(ARGV[at + 1]) >= 0 then count(keys.w, 'r', bucket, 1) end
    if tonumber(ARGV[at + 2]) >= 0 then count(keys.w, 't', bucket, tokens) end
    if tonumber(ARGV[at + 3]) >= 0 then
      redis.call('ZADD', keys.s, text(now + slot_ttl_us), KEYS[1])
      keep(keys.s)
    end
    keep(keys.w)
  end
  redis.call('SET', KEYS[1], text(now + call_ttl_us), 'PX', keys_ttl_ms)
  return {1, now}
end
place = place or redis.call('INCR', KEYS[2])
for scope = 1, scopes do
  if refused[scope] then
    join(keys_of(scope), ticket, place, tokens)
    if refused[scope][1] > worst_turn then
      worst_turn, worst_dimension, worst_scope = refused[scope][1], refused[scope][2], scope
    end
  end
end
local wait
if worst_turn <= look_us then
  wait = max(worst_turn, LEAST_WAIT)
else
  local part = min(max(floor(worst_turn / 4), look_us), window_us)
  wait = min(part + floor(part * (place % 16) / 64), worst_turn)
end
for scope = 1, scopes do
  local keys = keys_of(scope)
  if redis.call('HEXISTS', keys.l, 'p:' .. ticket) == 1 then
    redis.call('ZADD', keys.z, text(now + wait + lapse_us), ticket)
    keep(keys.l)
    keep(keys.z)
  end
end
return {0, wait, max(worst_turn, wait), worst_scope, worst_dimension}
"""
)
"""KEYS: the call's, the counter's, then four per scope. ARGV: the timing, ticket, tokens, three limits per scope."""

SETTLE = (
    _SHARED
    + """
local reserved, actual, admitted_at = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local remembered = number(redis.call('GET', KEYS[1]))
redis.call('DEL', KEYS[1])
if remembered <= now then return {0} end
local counted_in = floor(admitted_at / bucket_us)
for scope = 1, #ARGV - 10 do
  local keys = keys_of(scope)
  advance_window(keys.w)
  redis.call('ZREMRANGEBYSCORE', keys.s, '-inf', text(now))
  local learned = redis.call('HMGET', keys.w, 'share', 'hold')
  if redis.call('ZREM', keys.s, KEYS[1]) == 1 then
    local hold = tonumber(learned[2]) or FIRST_HOLD
    redis.call('HSET', keys.w, 'hold', text(hold + floor((now - admitted_at - hold) / 8)))
  end
  if actual >= 0 and ARGV[10 + scope] == '1' then
    if reserved > 0 then
      local share = tonumber(learned[1]) or WHOLE
      local used = min(WHOLE, floor(actual * WHOLE / reserved))
      redis.call('HSET', keys.w, 'share', text(max(floor(WHOLE / 20), share + floor((used - share) / 16))))
    end
    if redis.call('HEXISTS', keys.w, 't:' .. text(counted_in)) == 1 then
      count(keys.w, 't', counted_in, actual - reserved)
    elseif actual > reserved then
      count(keys.w, 't', bucket, actual - reserved)
    end
  end
  keep(keys.w)
end
return {1}
"""
)
"""ARGV: the timing, reserved, actual (-1: unknown), when it was admitted, then for each scope whether tokens count."""

RENEW = (
    _SHARED
    + """
if number(redis.call('GET', KEYS[1])) <= now then return {0} end
redis.call('SET', KEYS[1], text(now + call_ttl_us), 'PX', keys_ttl_ms)
for scope = 1, #ARGV - 7 do
  if ARGV[7 + scope] == '1' then
    local keys = keys_of(scope)
    redis.call('ZADD', keys.s, text(now + slot_ttl_us), KEYS[1])
    keep(keys.s)
  end
end
return {1}
"""
)
"""ARGV: the timing, then for each scope whether it has slots."""

WITHDRAW = (
    _SHARED
    + """
for scope = 1, (#KEYS - 2) / 4 do leave(keys_of(scope), ARGV[8]) end
return {1}
"""
)
"""ARGV: the timing, the ticket."""
