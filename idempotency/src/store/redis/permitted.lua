-- Asks for each command in a way that does nothing, and returns what the server said to those it does not permit.
-- KEYS: a key that does not exist.
local refused = {}
local function ask(...)
  local answer = redis.pcall(...)
  local said = type(answer) == 'table' and answer.err
  -- Redis 7.0 says it in words only.
  if said and (string.find(said, 'NOPERM', 1, true) or string.find(said, 'The user executing the script', 1, true)) then
    table.insert(refused, string.lower((...)))
    table.insert(refused, said)
  end
end
ask('GET', KEYS[1])
ask('GETRANGE', KEYS[1], 0, 0)
ask('PEXPIRETIME', KEYS[1])
ask('SET', KEYS[1], '', 'XX', 'PX', 1)
ask('SETRANGE', KEYS[1], 0, '')
ask('TIME')
return refused
