-- Exact sliding logs of one rate-limited team: what was counted in the last window, and nothing else.
--
-- KEYS[1]  request log, sorted set: id -> time it was counted
-- KEYS[2]  token log, sorted set: id -> time its tokens were reserved
-- KEYS[3]  tokens, hash: id -> tokens, and 'total' -> their sum
-- ARGV[1]  operation, ARGV[2] window in µs, then what the operation takes:
--   take       rpm, tpm (-1 is no limit), then id and tokens of each request: all are counted or none is
--              -> {refused by (0 nothing, 1 requests, 2 tokens), µs until it would pass, now,
--                  requests counted, when the oldest leaves, tokens counted, when the oldest leave}
--   give_back  ids -> how many of them were still counted
--   settle     id, tokens -> 1, or 0 when the id has left the window
-- Units: µs of Redis's own clock, whole tokens. What was counted exactly one window ago has left.
-- Fails closed: when this cannot run, limited teams get 503.

local request_log, token_log, tokens_of = KEYS[1], KEYS[2], KEYS[3]
local window = tonumber(ARGV[2])
local PAGE = 500
local KEPT_MS = math.ceil(window / 1000) + 1000

local function redis_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function set_tokens(id, tokens)
  local before = tonumber(redis.call('HGET', tokens_of, id) or 0)
  redis.call('HSET', tokens_of, id, tokens)
  redis.call('HINCRBY', tokens_of, 'total', tokens - before)
end

local function forget_tokens(id)
  if redis.call('ZREM', token_log, id) == 1 then
    set_tokens(id, 0)
    redis.call('HDEL', tokens_of, id)
    return 1
  end
  return 0
end

local function forget_until(time)
  redis.call('ZREMRANGEBYSCORE', request_log, '-inf', time)
  repeat
    local ids = redis.call('ZRANGE', token_log, '-inf', time, 'BYSCORE', 'LIMIT', 0, PAGE)
    for _, id in ipairs(ids) do forget_tokens(id) end
  until #ids < PAGE
end

local function leaves_at(log, index, otherwise)
  local entry = redis.call('ZRANGE', log, index, index, 'WITHSCORES')
  return entry[2] and tonumber(entry[2]) + window or otherwise
end

-- When enough of the oldest tokens have left to make room for `excess` more.
local function tokens_leave_at(excess)
  local freed, index, ids = 0, 0, {}
  repeat
    ids = redis.call('ZRANGE', token_log, index, index + PAGE - 1)
    for place, id in ipairs(ids) do
      freed = freed + tonumber(redis.call('HGET', tokens_of, id))
      if freed >= excess then return leaves_at(token_log, index + place - 1) end
    end
    index = index + PAGE
  until #ids == 0
  error('the token log holds less than its total')
end

local function refused_until(now, rpm, tpm, count, tokens)
  local counted = redis.call('ZCARD', request_log)
  local reserved = tonumber(redis.call('HGET', tokens_of, 'total') or 0)
  local by, at = 0, now
  if tpm >= 0 and tokens > 0 and reserved + tokens > tpm then
    by, at = 2, tokens > tpm and now + window or tokens_leave_at(reserved + tokens - tpm)
  end
  if rpm >= 0 and counted + count > rpm then
    local free_at = count > rpm and now + window or leaves_at(request_log, counted + count - rpm - 1)
    by, at = 1, math.max(at, free_at)
  end
  return by, at
end

local function count_all(now, rpm, tpm)
  for i = 5, #ARGV, 2 do
    local id, tokens = ARGV[i], tonumber(ARGV[i + 1])
    if rpm >= 0 then redis.call('ZADD', request_log, now, id) end
    if tpm >= 0 and tokens > 0 then
      redis.call('ZADD', token_log, now, id)
      set_tokens(id, tokens)
    end
  end
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, KEPT_MS) end
end

local function take()
  local now, rpm, tpm = redis_now(), tonumber(ARGV[3]), tonumber(ARGV[4])
  local count, tokens = (#ARGV - 4) / 2, 0
  for i = 6, #ARGV, 2 do tokens = tokens + tonumber(ARGV[i]) end
  forget_until(now - window)
  local by, at = refused_until(now, rpm, tpm, count, tokens)
  if by == 0 then count_all(now, rpm, tpm) end
  return {
    by, at - now, now,
    redis.call('ZCARD', request_log), leaves_at(request_log, 0, now + window),
    tonumber(redis.call('HGET', tokens_of, 'total') or 0), leaves_at(token_log, 0, now + window),
  }
end

local function give_back()
  local removed = 0
  for i = 3, #ARGV do
    local tokens_removed = forget_tokens(ARGV[i])
    removed = removed + math.max(redis.call('ZREM', request_log, ARGV[i]), tokens_removed)
  end
  return removed
end

local function settle()
  if redis.call('HEXISTS', tokens_of, ARGV[3]) == 0 then return 0 end
  set_tokens(ARGV[3], tonumber(ARGV[4]))
  return 1
end

local operations = { take = take, give_back = give_back, settle = settle }
return operations[ARGV[1]]()
