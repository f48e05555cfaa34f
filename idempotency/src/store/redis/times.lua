-- From `head`: when it was claimed, how long ago, how long after that the lease ends (all in ms), and its fence.
local ends = tonumber(string.sub(head, 81, 94))
if ends == 0 then
  ends = redis.call('PEXPIRETIME', KEYS[1])
end
local claimed = ends - tonumber(string.sub(head, 95, 108))
-- A clock that jumped back leaves a lease as it was.
local age = math.max(now - claimed, 0)
local lease = tonumber(string.sub(head, 109, 122))
local fence = tonumber(string.sub(head, 64, 80))
if fence == 0 then
  fence = claimed * 1000
end
