-- Apply the commands of one write, unless a later owner has acquired the partition, or the write has
-- been applied already and only its answer was lost.
-- KEYS[1] = meta hash, the other KEYS are all keys written; ARGV[1] = token, ARGV[2] = name of the
-- write (token:number), then for each command: number of words, the words.
local stored = redis.call('HMGET', KEYS[1], 'fence', 'applied')
if stored[1] ~= ARGV[1] then
  return redis.error_reply('FENCED another worker owns this partition')
end
if stored[2] == ARGV[2] then
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
