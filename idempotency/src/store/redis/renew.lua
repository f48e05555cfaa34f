-- ARGV: how a record begins that this token holds, the lease in ms
local head = redis.call('GETRANGE', KEYS[1], 0, 135)
