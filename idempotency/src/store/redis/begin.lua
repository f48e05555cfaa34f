-- KEYS: the record. ARGV: the record a first claim leaves, how long to keep it in ms.
-- A free key costs one command: when it was claimed, its end says.
local found = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'GET', 'PX', ARGV[2])
if not found then
  return redis.call('PEXPIRETIME', KEYS[1])
end
local state = string.sub(found, 1, 2)
local free = state == '1r' or state == '1g'
if not free and (state ~= '1i' or string.sub(found, 21, 53) ~= string.sub(ARGV[1], 21, 53)) then
  return found
end
local attempt = tonumber(string.sub(found, 54, 63)) + 1
local head = found
