if not free then
  if string.sub(found, 3, 18) == string.sub(ARGV[1], 3, 18) then
    -- The same claim again: its first answer was lost on the way.
    local renewed = math.min(age + tonumber(string.sub(ARGV[1], 109, 122)), tonumber(string.sub(found, 123, 136)))
    redis.call('SETRANGE', KEYS[1], 108, string.format('%014.0f', renewed))
    return { 1, fence, attempt - 1, math.max(renewed - age, 0) }
  end
  if age < lease or string.sub(found, 19, 20) ~= '0m' and string.sub(found, 19, 20) ~= '0l' then
    return { 2, found, claimed, now }
  end
elseif state == '1g' then
  attempt = 1
end
fence = math.max(now * 1000, fence + 1)
redis.call('SET', KEYS[1], string.sub(ARGV[1], 1, 53) .. string.format('%010.0f%017.0f', attempt, fence)
  .. string.sub(ARGV[1], 81), 'PX', ARGV[2])
return { 1, fence, attempt, tonumber(string.sub(ARGV[1], 109, 122)) }
