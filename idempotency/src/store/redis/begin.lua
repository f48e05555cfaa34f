-- ARGV: token, fingerprint, effects, lease, cap, retention, least time to keep a record (all but the first three in us)
local found = redis.call('HMGET', key, 'state', 'token', 'print', 'fence', 'attempt', 'marked', 'lease', 'cap', 'ends', 'effects')
local state, fence, attempt = found[1], now, 1
local free = not state or state == 'released' or (state ~= 'in_flight' and tonumber(found[9]) <= now)

if free then
  if state == 'released' then
    attempt = tonumber(found[5]) + 1
  end
elseif state ~= 'in_flight' or found[3] ~= ARGV[2] then
  return record()
elseif found[2] == ARGV[1] then
  -- The same claim again: its first answer was lost on the way.
  local lease = math.min(now + ARGV[4], tonumber(found[8]))
  redis.call('HSET', key, 'lease', text(lease))
  return { 1, found[4], found[5], text(math.max(lease - now, 0)) }
elseif tonumber(found[7]) > now or found[10] == 'opaque' or found[6] == '1' then
  return record()
else
  attempt = tonumber(found[5]) + 1
end

if found[4] then
  fence = math.max(now, tonumber(found[4]) + 1)
end
-- The first write is the one that a full server refuses, before anything has changed.
redis.call('HSET', key, 'state', 'in_flight', 'token', ARGV[1], 'print', ARGV[2], 'effects', ARGV[3],
  'fence', text(fence), 'attempt', text(attempt), 'lease', text(now + ARGV[4]), 'cap', text(now + ARGV[5]),
  'ends', text(now + ARGV[5] + ARGV[6]))
if state then
  redis.call('HDEL', key, 'marked', 'status', 'headers', 'body', 'location', 'reason')
end
if ARGV[3] ~= 'opaque' then
  expire_in(math.max(ARGV[5] + ARGV[6], tonumber(ARGV[7])))
elseif state then
  redis.call('PERSIST', key)
end
return { 1, text(fence), text(attempt), text(tonumber(ARGV[4])) }
