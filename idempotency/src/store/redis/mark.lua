-- ARGV: how a record begins that this token holds, how long to keep what must be settled by hand, in ms
local head = redis.call('GETRANGE', KEYS[1], 0, 135)
if string.sub(head, 1, 19) == ARGV[1] .. '0' then
  if string.sub(head, 81, 94) == '00000000000000' then
    -- The end of the key is about to say something else than when it was claimed.
    redis.call('SETRANGE', KEYS[1], 80, string.format('%014.0f', redis.call('PEXPIRETIME', KEYS[1])))
  end
  redis.call('SETRANGE', KEYS[1], 18, '1')
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
