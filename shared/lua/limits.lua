-- Exact sliding logs of a team and its keys, each a subject: what was counted in the last window, and nothing else.
--
-- KEYS     three for each subject, all with the team's hash tag:
--   request log, sorted set: id -> time it was counted
--   token log, sorted set: id -> time its tokens were reserved
--   tokens, hash: id -> tokens, and 'total' -> their sum
-- ARGV[1]  operation, ARGV[2] window in µs, then what the operation takes:
--   take       rpm, tpm (-1 is no limit) of each subject, then id and tokens of each request: all requests are counted
--              by all subjects, or none by any
--              -> {refused by (0 nothing, else 2 * subject - 1 its requests, 2 * subject its tokens),
--                  µs until it would pass, now, and of each subject:
--                  requests counted, when the oldest leaves, tokens counted, when the oldest leave}
--   give_back  ids -> {how many of them were still counted, now, and of each subject as take}
--   settle     id and tokens of each call -> how often one of them was still counted by a subject
-- Units: µs of Redis's own clock, whole tokens. What was counted exactly one window ago has left.
-- Fails closed: when this cannot run, limited teams and keys get 503.

local window = tonumber(ARGV[2])
local PAGE = 500
local KEPT_MS = math.ceil(window / 1000) + 1000

local function redis_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function subjects()
  local found = {}
  for first = 1, #KEYS, 3 do
    found[#found + 1] = { requests = KEYS[first], tokens = KEYS[first + 1], tokens_of = KEYS[first + 2] }
  end
  return found
end

local function total_of(subject)
  return tonumber(redis.call('HGET', subject.tokens_of, 'total') or 0)
end

local function set_tokens(subject, id, tokens)
  local before = tonumber(redis.call('HGET', subject.tokens_of, id) or 0)
  redis.call('HSET', subject.tokens_of, id, tokens)
  redis.call('HINCRBY', subject.tokens_of, 'total', tokens - before)
end

local function forget_tokens(subject, id)
  if redis.call('ZREM', subject.tokens, id) == 1 then
    set_tokens(subject, id, 0)
    redis.call('HDEL', subject.tokens_of, id)
    return 1
  end
  return 0
end

local function forget_until(subject, time)
  redis.call('ZREMRANGEBYSCORE', subject.requests, '-inf', time)
  repeat
    local ids = redis.call('ZRANGE', subject.tokens, '-inf', time, 'BYSCORE', 'LIMIT', 0, PAGE)
    for _, id in ipairs(ids) do forget_tokens(subject, id) end
  until #ids < PAGE
end

local function leaves_at(log, index, otherwise)
  local entry = redis.call('ZRANGE', log, index, index, 'WITHSCORES')
  return entry[2] and tonumber(entry[2]) + window or otherwise
end

-- When enough of the oldest tokens have left to make room for `excess` more.
local function tokens_leave_at(subject, excess)
  local freed, index, ids = 0, 0, {}
  repeat
    ids = redis.call('ZRANGE', subject.tokens, index, index + PAGE - 1)
    for place, id in ipairs(ids) do
      freed = freed + tonumber(redis.call('HGET', subject.tokens_of, id))
      if freed >= excess then return leaves_at(subject.tokens, index + place - 1) end
    end
    index = index + PAGE
  until #ids == 0
  error('the token log holds less than its total')
end

-- When `count` more requests have room; nil: they have it now.
local function requests_fit_at(subject, now, count)
  local counted = redis.call('ZCARD', subject.requests)
  if subject.rpm < 0 or counted + count <= subject.rpm then return nil end
  return count > subject.rpm and now + window or leaves_at(subject.requests, counted + count - subject.rpm - 1)
end

local function tokens_fit_at(subject, now, tokens)
  local excess = total_of(subject) + tokens - subject.tpm
  if subject.tpm < 0 or tokens == 0 or excess <= 0 then return nil end
  return tokens > subject.tpm and now + window or tokens_leave_at(subject, excess)
end

-- Who refuses longest, a limit on requests before one on tokens, and when nobody would any more.
local function refused_until(found, now, count, tokens)
  local by, by_at, at = 0, now, now
  for n, subject in ipairs(found) do
    local free_at = requests_fit_at(subject, now, count)
    if free_at and (by == 0 or free_at > by_at) then by, by_at = 2 * n - 1, free_at end
    at = math.max(at, free_at or now)
  end
  local of_requests = by > 0
  for n, subject in ipairs(found) do
    local free_at = tokens_fit_at(subject, now, tokens)
    if free_at and not of_requests and (by == 0 or free_at > by_at) then by, by_at = 2 * n, free_at end
    at = math.max(at, free_at or now)
  end
  return by, at
end

local function count_all(subject, now, first)
  for i = first, #ARGV, 2 do
    local id, tokens = ARGV[i], tonumber(ARGV[i + 1])
    if subject.rpm >= 0 then redis.call('ZADD', subject.requests, now, id) end
    if subject.tpm >= 0 and tokens > 0 then
      redis.call('ZADD', subject.tokens, now, id)
      set_tokens(subject, id, tokens)
    end
  end
end

local function standing(subject, now, answer)
  answer[#answer + 1] = redis.call('ZCARD', subject.requests)
  answer[#answer + 1] = leaves_at(subject.requests, 0, now + window)
  answer[#answer + 1] = total_of(subject)
  answer[#answer + 1] = leaves_at(subject.tokens, 0, now + window)
end

local function take()
  local now, found, tokens = redis_now(), subjects(), 0
  local first = 3 + 2 * #found
  for n, subject in ipairs(found) do
    subject.rpm, subject.tpm = tonumber(ARGV[2 * n + 1]), tonumber(ARGV[2 * n + 2])
    forget_until(subject, now - window)
  end
  for i = first + 1, #ARGV, 2 do tokens = tokens + tonumber(ARGV[i]) end
  local by, at = refused_until(found, now, (#ARGV - first + 1) / 2, tokens)
  local answer = { by, at - now, now }
  for _, subject in ipairs(found) do
    if by == 0 then count_all(subject, now, first) end
    standing(subject, now, answer)
  end
  if by == 0 then
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, KEPT_MS) end
  end
  return answer
end

local function give_back()
  local now, removed, answer = redis_now(), 0, {}
  for _, subject in ipairs(subjects()) do
    forget_until(subject, now - window)
    for i = 3, #ARGV do
      local tokens_removed = forget_tokens(subject, ARGV[i])
      removed = removed + math.max(redis.call('ZREM', subject.requests, ARGV[i]), tokens_removed)
    end
    standing(subject, now, answer)
  end
  return { removed, now, unpack(answer) }
end

local function settle()
  local settled = 0
  for _, subject in ipairs(subjects()) do
    for i = 3, #ARGV, 2 do
      if redis.call('HEXISTS', subject.tokens_of, ARGV[i]) == 1 then
        set_tokens(subject, ARGV[i], tonumber(ARGV[i + 1]))
        settled = settled + 1
      end
    end
  end
  return settled
end

local operations = { take = take, give_back = give_back, settle = settle }
return operations[ARGV[1]]()
