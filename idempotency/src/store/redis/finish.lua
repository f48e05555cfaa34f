-- ARGV: by ('token' or 'fence'), its value, the new state, how long to keep it in us, then fields and values.
-- A holder finishes its own attempt; a resolution finishes the lapsed attempt that had this fence.
local found = redis.call('HMGET', key, 'state', 'token', 'fence', 'marked', 'lease')
local allowed
if ARGV[1] == 'token' then
  allowed = found[2] == ARGV[2] and not (ARGV[3] == 'released' and found[4] == '1')
else
  allowed = found[3] == ARGV[2] and tonumber(found[5] or 0) <= now
end
if found[1] ~= 'in_flight' or not allowed then
  return record()
end
redis.call('HSET', key, 'state', ARGV[3], 'ends', text(now + ARGV[4]), unpack(ARGV, 5))
-- What is finished has no lease; each field costs as much as a short answer.
redis.call('HDEL', key, 'lease', 'cap')
expire_in(tonumber(ARGV[4]))
return { 1 }
