-- ARGV: how a record begins that this token holds, the new state, what follows the head, how long to keep it in ms
local head = redis.call('GETRANGE', KEYS[1], 0, 135)
if string.sub(head, 1, 18) == ARGV[1] and not (ARGV[2] == 'r' and string.sub(head, 19, 19) == '1') then
  local ends = string.sub(head, 81, 94)
  if ends == '00000000000000' then
    ends = string.format('%014.0f', redis.call('PEXPIRETIME', KEYS[1]))
  end
  redis.call('SET', KEYS[1], '1' .. ARGV[2] .. string.sub(head, 3, 80) .. ends .. string.sub(head, 95) .. ARGV[3],
    'PX', ARGV[4])
  return 1
end
