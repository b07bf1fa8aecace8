-- One exchange of an owner with the store of counters: the rules of rules.py, word for word.
--
-- KEYS  1 state (hash: generation, open)   2 owners (hash: owner -> "life seq")
--       3 registered (set)   4 expected (set)   5 gone (set)   6 holding of this owner (set)
--       then one per row, one per draw, one per seed
-- ARGV  owner life seq acked generation fresh_generation stage peers is_first,
--       number of rows, draws, expected, gone, seeds;
--       rows: cap used held spare least need want lapse_ms expires_at_ms
--       draws: amount back least need want;   expected, gone: owners;   seeds: owner used expires_at_ms
-- A counter is a hash: _used _held _spare (sums), _low (until, ms), owner -> "used held spare said_at".
-- All amounts stay below 2^53, where a double counts exactly; so must what is added on the way.

local STOCK_SHARE, LOW_MS, UNITS = 8, 1000, 60000
local RUN, DONE = 0, 2

local state, owners, registered, expected, gone, holding = unpack(KEYS, 1, 6)
local owner, life, seq, acked = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local generation, fresh, stage = ARGV[5], ARGV[6], tonumber(ARGV[7])
local peers, is_first = tonumber(ARGV[8]), ARGV[9] == '1'
local n_rows, n_draws, n_expected = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local n_gone, n_seeds = tonumber(ARGV[13]), tonumber(ARGV[14])
local key_at, arg_at = 6, 14
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function text(number) return string.format('%.0f', number) end

local function take_args(count)
  local first = arg_at + 1
  arg_at = arg_at + count
  return unpack(ARGV, first, arg_at)
end

local function take_numbers(count)
  local numbers = {take_args(count)}
  for i = 1, count do numbers[i] = tonumber(numbers[i]) end
  return unpack(numbers, 1, count)
end

local function parse(row)
  if not row then return 0, 0, 0, 0 end
  local used, held, spare, said = string.match(row, '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(used), tonumber(held), tonumber(spare), tonumber(said)
end

local function decide_grant(free, least, need, want)
  if free < math.max(least, 1) then return 0 end
  return math.max(math.min(need, free), math.min(want, math.floor(free / STOCK_SHARE)))
end

-- Put the row of an owner in place of its old one and return the counter's new sums.
local function write(key, who, sums, old_used, old_held, old_spare, used, held, spare)
  sums.used = sums.used + (used - old_used)
  sums.held = sums.held + (held - old_held)
  sums.spare = sums.spare + (spare - old_spare)
  redis.call('HSET', key, '_used', text(sums.used), '_held', text(sums.held),
    '_spare', text(sums.spare))
  if used == 0 and held == 0 then
    redis.call('HDEL', key, who)
  else
    redis.call('HSET', key, who, string.format('%.0f %.0f %.0f %.0f', used, held, spare, now))
  end
end

local function read(key, who)
  local found = redis.call('HMGET', key, '_used', '_held', '_spare', '_low', who)
  local sums = {
    used = tonumber(found[1] or 0), held = tonumber(found[2] or 0), spare = tonumber(found[3] or 0)
  }
  return sums, tonumber(found[4] or 0), found[5], not found[1]
end

local function drop_lapsed(key, sums, before)
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local who = fields[i]
    if string.sub(who, 1, 1) ~= '_' then
      local used, held, spare, said = parse(fields[i + 1])
      if held > 0 and said < before then
        write(key, who, sums, used, held, spare, used, 0, 0)
      end
    end
  end
end

local function post(key, may_grant)
  local cap, used, held, spare, least, need, want, lapse, expires = take_numbers(9)
  local sums, low, row, is_new = read(key, owner)
  local old_used, old_held, old_spare = parse(row)
  used = math.max(used, old_used)
  write(key, owner, sums, old_used, old_held, old_spare, used, held, spare)
  if is_new and expires > 0 then redis.call('PEXPIREAT', key, text(expires)) end
  if lapse > 0 then
    redis.call('PEXPIRE', key, text(lapse))
    drop_lapsed(key, sums, now - lapse)
  end
  local granted = 0
  if may_grant and want > 0 then
    local stock = want
    if low > now then stock = need end
    granted = decide_grant(cap - sums.used - sums.held, least, need, stock)
    if granted < need then
      low = now + LOW_MS
      redis.call('HSET', key, '_low', text(low))
    end
  end
  if granted > 0 then
    -- Spare until the owner says that a call has reserved it: whoever lacks it may wait.
    write(key, owner, sums, used, held, spare, used, held + granted, spare + granted)
  end
  if held + granted > 0 then
    if old_held == 0 then redis.call('SADD', holding, key) end
  elseif old_held > 0 then
    redis.call('SREM', holding, key)
  end
  local is_low = 0
  if low > now then is_low = 1 end
  return {granted, sums.used, sums.held, sums.spare, is_low}
end

local function draw(key)
  local amount, back, least, need, want = take_numbers(5)
  local found = redis.call('HMGET', key, 'level', 'at')
  local full = amount * UNITS
  local level, at = tonumber(found[1] or full), tonumber(found[2] or now)
  level = math.min(full, level + amount * math.min(math.max(now - at, 0), UNITS))
  level = math.min(level + back * UNITS, full)
  local granted = 0
  if want > 0 then granted = decide_grant(math.floor(level / UNITS), least, need, want) end
  level = level - granted * UNITS
  redis.call('HSET', key, 'level', text(level), 'at', text(math.max(now, at)))
  redis.call('PEXPIRE', key, UNITS * 2)
  local lacks = 0
  if granted < least then lacks = math.max(least * UNITS - level, 0) end
  return {granted, math.floor(level / UNITS), math.ceil(lacks / math.max(amount, 1))}
end

local function list_missing()
  local missing = redis.call('SDIFF', expected, registered, gone)
  table.sort(missing)
  return missing
end

local function release_leftovers()
  for _, key in ipairs(redis.call('SMEMBERS', holding)) do
    local sums, _, row = read(key, owner)
    if row then
      local used, held, spare = parse(row)
      write(key, owner, sums, used, held, spare, used, 0, 0)
    end
  end
  redis.call('DEL', holding)
end

local function sow(key)
  local who, used, expires = take_args(3)
  used, expires = tonumber(used), tonumber(expires)
  if redis.call('SISMEMBER', registered, who) == 1 then return end
  local sums, _, row, is_new = read(key, who)
  local old_used, held, spare = parse(row)
  write(key, who, sums, old_used, held, spare, math.max(old_used, used), held, spare)
  if is_new and expires > 0 then redis.call('PEXPIREAT', key, text(expires)) end
end

local function register(first_seed_key)
  if is_first then release_leftovers() end
  redis.call('SADD', registered, owner)
  redis.call('SREM', gone, owner)
  for _ = 1, n_expected do redis.call('SADD', expected, (take_args(1))) end
  for _ = 1, n_gone do
    local who = take_args(1)
    if redis.call('SISMEMBER', registered, who) == 0 then redis.call('SADD', gone, who) end
  end
  for i = 1, n_seeds do sow(KEYS[first_seed_key + i]) end
  if #list_missing() == 0 then redis.call('HSET', state, 'open', 1) end
end

local known = redis.call('HGET', owners, owner)
local last_life, last_seq = 0, 0
if known then
  local found_life, found_seq = string.match(known, '^(%d+) (%d+)$')
  last_life, last_seq = tonumber(found_life), tonumber(found_seq)
end
local current = redis.call('HGET', state, 'generation') or ''
if life < last_life or (life == last_life and seq <= last_seq) then
  return {'stale', current}
end
local has_lost = last_life < life or (last_life == life and last_seq < acked)
if current == '' or (has_lost and acked > 0 and generation == current) then
  current = fresh
  redis.call('HSET', state, 'generation', current, 'open', 0)
  redis.call('DEL', registered, expected, gone)
end
if life > last_life then redis.call('SREM', registered, owner) end
redis.call('HSET', owners, owner, text(life) .. ' ' .. text(seq))
local is_registered = stage ~= RUN or redis.call('SISMEMBER', registered, owner) == 1
if generation ~= current or not is_registered then return {'register', current} end

local may_grant = stage == RUN and redis.call('HGET', state, 'open') == '1'
local rows, draws = {}, {}
for i = 1, n_rows do rows[i] = post(KEYS[key_at + i], may_grant) end
key_at = key_at + n_rows
for i = 1, n_draws do draws[i] = draw(KEYS[key_at + i]) end
key_at = key_at + n_draws
if stage == DONE then register(key_at) end

local status, missing, names = 'open', {}, {}
if redis.call('HGET', state, 'open') ~= '1' then
  status, missing = 'closed', list_missing()
end
if redis.call('HLEN', owners) ~= peers then
  names = redis.call('HKEYS', owners)
  table.sort(names)
end
return {status, current, rows, draws, names, missing}
