-- Apply the commands of one flush, unless a later owner has acquired the partition, or the flush has
-- been applied already and only its answer was lost.
-- KEYS[1] = meta hash, the other KEYS are all keys written; ARGV[1] = token, ARGV[2] = name of the
-- flush, then for each command: number of words, the words.
local known = redis.call('HMGET', KEYS[1], 'fence', 'applied')
if known[1] ~= ARGV[1] then
  return redis.error_reply('FENCED another worker owns this partition')
end
if known[2] == ARGV[2] then
  return 'OK'
end
local i = 3
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
redis.call('HSET', KEYS[1], 'applied', ARGV[2])
return 'OK'
