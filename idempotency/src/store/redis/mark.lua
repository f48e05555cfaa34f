-- ARGV: token. A marked record is never forgotten by itself.
local found = redis.call('HMGET', key, 'state', 'token', 'marked')
if found[1] ~= 'in_flight' or found[2] ~= ARGV[1] or found[3] == '1' then
  return record()
end
redis.call('HSET', key, 'marked', '1')
redis.call('PERSIST', key)
return { 1 }
