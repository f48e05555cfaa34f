if string.sub(head, 1, 2) == '1i' and fence == tonumber(ARGV[1]) and age >= lease then
  redis.call('SET', KEYS[1], '1' .. ARGV[2] .. string.sub(head, 3, 80) .. string.format('%014.0f', ends)
    .. string.sub(head, 95) .. ARGV[3], 'PX', ARGV[4])
  return 1
end
return { 2, head, claimed, now }
