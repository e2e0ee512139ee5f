-- The rows of one series in the blocks of many buckets, joined: one command and one answer for all.
-- KEYS[1] = key of the blocks up to the bucket start; ARGV = key suffix after the start, first start,
-- last start, step, byte offset of the row, bytes of a row, the byte that fills an absent row.
local first, last, step = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local from, width = tonumber(ARGV[5]), tonumber(ARGV[6])
local absent = string.rep(ARGV[7], width)
local rows = {}
for start = first, last, step do
  local key = KEYS[1] .. string.format('%.0f', start) .. ARGV[1]
  local row = redis.call('GETRANGE', key, from, from + width - 1)
  rows[#rows + 1] = #row == width and row or absent
end
return table.concat(rows)
