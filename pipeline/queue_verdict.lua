-- Applies a verdict of the log to its job.
-- ARGV: partition, offset, job, keep_ms, ticket_ms, what, then by what:
--   ignore: 1 where its job is to be opened again, then, of a golden job, person and decision; progress: part, need, barred, saw (JSON), who said that; close: verdict, by, JSON of [member, decision] pairs
-- Returns 1 where it was this record's turn.

local partition, offset, job = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local keep_ms, ticket_ms, what = ARGV[4], ARGV[5], ARGV[6]
local done = redis.call('HGET', P .. 'offsets', partition)
if not done then return 'LOST' end
if offset < tonumber(done) then return 0 end
local now = now_ms()

if what == 'progress' and exists(job) then
  open_again(job)
  -- Who has judged it is not let in again, though they gave it away before.
  local gave = without(redis.call('HGET', P .. 'job:' .. job, 'gave') or '', ARGV[11])
  change(job, 'part', ARGV[7], 'need', ARGV[8], 'barred', ARGV[9], 'saw', ARGV[10], 'gave', gave)
elseif what == 'close' then
  for _, pair in ipairs(cjson.decode(ARGV[9])) do
    settle(job_of(pair[1]), pair[1], pair[2], ARGV[7], ARGV[8], now, keep_ms, ticket_ms)
  end
  -- Members that joined while the verdict was on its way are judged by themselves.
  if exists(job) then
    open_again(job)
    change(job, 'part', 'first', 'need', 'reviewer', 'saw', '[]')
  end
elseif what == 'ignore' and exists(job) then
  local state = redis.call('HGET', P .. 'job:' .. job, 'state')
  local golden = redis.call('HGET', P .. 'job:' .. job, 'part') == 'golden'
  if (ARGV[7] == '1' or golden) and (state == 'sent' or state == 'sending') then open_again(job) end
end
-- An emptied Redis has forgotten who has met which known item.
if what == 'ignore' and ARGV[8] ~= '' then redis.call('SADD', P .. 'met:' .. ARGV[8], ARGV[9]) end
advance(partition, string.format('%d', offset + 1))
return 1
