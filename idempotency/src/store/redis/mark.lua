-- ARGV: how a record begins that this token holds, how long to keep what must be settled by hand, in ms
local head = redis.call('GETRANGE', KEYS[1], 0, 135)
if string.sub(head, 1, 19) == ARGV[1] .. '0' then
  local ends = string.sub(head, 81, 94)
  if ends == '00000000000000' then
    -- The end of the key is about to say something else than when it was claimed.
    ends = string.format('%014.0f', redis.call('PEXPIRETIME', KEYS[1]))
  end
  redis.call('SET', KEYS[1], ARGV[1] .. '1' .. string.sub(head, 20, 80) .. ends .. string.sub(head, 95), 'PX', ARGV[2])
  return 1
end
