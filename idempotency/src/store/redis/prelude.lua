-- Shared by every script. One record is one hash at KEYS[1]; times are microseconds of this server's clock.
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Whole numbers up to 2^53 survive; without a format Lua would write large ones in scientific notation.
local function text(number)
  return string.format('%.0f', number)
end

-- The key outlives the record it holds by nothing; a record that must be settled by hand has no end.
local function expire_in(micros)
  redis.call('PEXPIRE', key, text(math.ceil(micros / 1000)))
end

-- The record for the caller to judge; a running request's duplicate never reads a body.
local function record()
  local found = redis.call('HMGET', key, 'state', 'token', 'print', 'effects', 'fence', 'attempt', 'marked',
    'lease', 'cap', 'ends', 'status', 'location', 'reason')
  if not found[1] then
    return { 0 }
  end
  local reply = { 2, text(now) }
  for index = 1, 13 do
    reply[index + 2] = found[index] or ''
  end
  if found[1] == 'completed' then
    local kept = redis.call('HMGET', key, 'headers', 'body')
    reply[16], reply[17] = kept[1], kept[2]
  end
  return reply
end
