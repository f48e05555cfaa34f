-- ARGV: the fence of the lost attempt, the new state, what follows the head, how long to keep it in ms
local head = redis.call('GETRANGE', KEYS[1], 0, 135)
