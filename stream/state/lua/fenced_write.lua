-- Apply the commands of one flush, unless a later owner has acquired the partition.
-- KEYS[1] = meta hash, the other KEYS are all keys written; ARGV[1] = token,
-- then for each command: number of words, the words.
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then
  return redis.error_reply('FENCED another worker owns this partition')
end
local i = 2
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return 'OK'
