local head = redis.call('GET', KEYS[1])
if not head then
  return 0
end
