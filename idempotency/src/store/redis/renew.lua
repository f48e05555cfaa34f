-- ARGV: token, lease in us
local found = redis.call('HMGET', key, 'state', 'token', 'cap')
if found[1] ~= 'in_flight' or found[2] ~= ARGV[1] then
  return record()
end
local lease = math.min(now + ARGV[2], tonumber(found[3]))
redis.call('HSET', key, 'lease', text(lease))
return { 1, text(math.max(lease - now, 0)) }
