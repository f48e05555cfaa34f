if string.sub(head, 1, 18) == ARGV[1] then
  lease = math.min(age + ARGV[2], tonumber(string.sub(head, 123, 136)))
  redis.call('SETRANGE', KEYS[1], 108, string.format('%014.0f', lease))
  return { 1, math.max(lease - age, 0) }
end
return { 2, head, claimed, now }
