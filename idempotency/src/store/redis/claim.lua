-- KEYS: the record. ARGV: the record a first claim leaves, how long to keep it in ms.
local ends = now + tonumber(ARGV[2])
local found = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'GET', 'PXAT', ends)
if not found then
  return ends
end
local state = string.sub(found, 1, 2)
local free = state == '1r' or state == '1g'
if not free and (state ~= '1i' or string.sub(found, 21, 53) ~= string.sub(ARGV[1], 21, 53)) then
  return found
end
local attempt = tonumber(string.sub(found, 54, 63)) + 1
local head = found
