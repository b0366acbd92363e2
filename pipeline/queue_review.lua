-- Applies what a person did to a job, from the log or, early, by the one who wrote it there.
-- ARGV: partition, offset, 1 where early, kind, job, person, lease or '', JSON of the rest
--   (queue, ms, seconds, weight, day, in_a_row, rest_ms, note, decision, bucket, names: the content and the digests of
--   its media, keep_ms)
-- Returns 1 where it was applied, 0 where it had been, LOST where Redis was emptied.

local partition, offset, early = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local kind, job, person, lease = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local rest = cjson.decode(ARGV[8])

if not redis.call('HGET', P .. 'offsets', partition) then return 'LOST' end
if not exists(job) then job = job_of(job) end
-- A job that is not rebuilt yet meets this record when its turn comes.
local alone = {revealed = true, golden = true, paused = true, resumed = true, rested = true, returned = true}
if early and not exists(job) and not alone[kind] then return 0 end
local done = tonumber(redis.call('HGET', P .. 'offsets', partition))
local mine = turn(partition, offset, early)
if not early then
  if offset < done then return 0 end
  advance(partition, string.format('%d', offset + 1))
end
if not mine then return 0 end

-- Who let go of a job does not hold it any more; a newer lease is somebody else's.
local function let_go()
  local f = job_fields(job, 'state', 'lease')
  if f[1] == 'leased' and (lease == '' or f[2] == lease) then open_again(job) end
end

local function go(queue)
  if tonumber(redis.call('HGET', P .. 'job:' .. job, 'moved')) < offset then
    redis.call('HSET', P .. 'job:' .. job, 'moved', string.format('%d', offset))
    local due = move(job, queue)
    -- The new queue's time counts, unless the job is due before.
    if due then
      local by = math.min(rest.ms + due, tonumber(redis.call('HGET', P .. 'job:' .. job, 'due')))
      redis.call('HSET', P .. 'job:' .. job, 'due', string.format('%d', by))
      if redis.call('HGET', P .. 'job:' .. job, 'late') ~= '1' then redis.call('ZADD', P .. 'due', by, job) end
    end
  end
end

-- Points are severity weight × minutes; a day's and those in a row, which a break ends.
local function expose()
  local key = P .. 'care:' .. person
  local c = redis.call('HMGET', key, 'day', 'points', 'run', 'last')
  local points = rest.weight * rest.seconds / 60
  local day = rest.day
  local today = 0
  if c[1] and c[1] > day then return end
  if c[1] == day then today = tonumber(c[2]) end
  local run = 0
  if c[3] and rest.ms - tonumber(c[4]) < rest.rest_ms then run = tonumber(c[3]) end
  run = run + points
  if run >= rest.in_a_row then
    redis.call('HSET', key, 'rest', string.format('%d', rest.ms + rest.rest_ms))
    run = 0
  end
  redis.call('HSET', key, 'day', day, 'points', string.format('%.17g', today + points), 'run',
    string.format('%.17g', run), 'last', string.format('%d', rest.ms))
  redis.call('EXPIRE', key, 172800)
end

if kind == 'revealed' then
  expose()
  return 1
end
-- Of what was said of one queue, or by one person, the last on the log holds, whoever is first to apply it.
if kind == 'paused' or kind == 'resumed' then
  local known = string.match(redis.call('HGET', P .. 'paused', rest.queue) or '-1|', '^[^|]*')
  if offset > tonumber(known) then
    local by = kind == 'paused' and person or ''
    redis.call('HSET', P .. 'paused', rest.queue, string.format('%d', offset) .. '|' .. by)
  end
  return 1
end
if kind == 'rested' or kind == 'returned' then
  local key = P .. 'care:' .. person
  if offset > tonumber(redis.call('HGET', key, 'own_at') or '-1') then
    local until_ms = kind == 'rested' and rest.ms + rest.seconds * 1000 or 0
    redis.call('HSET', key, 'own', string.format('%d', until_ms), 'own_at', string.format('%d', offset))
    redis.call('EXPIRE', key, 172800)
  end
  return 1
end
if kind == 'moved' or kind == 'escalated' then seal(rest.queue, rest.names, rest.keep_ms) end
if kind == 'golden' then
  local ticket = redis.call('GET', P .. 'ticket:' .. rest.decision)
  if ticket then
    redis.call('SET', P .. 'golden:' .. rest.decision, ticket)
    redis.call('HSET', P .. 'goldens:' .. rest.queue, rest.decision, rest.bucket)
  end
  return 1
end
if not exists(job) then return 1 end
if kind == 'skipped' then
  let_go()
  if exists(job) then pass_over(job, person, rest.ms) end
elseif kind == 'released' then
  let_go()
elseif kind == 'moved' or kind == 'escalated' then
  let_go()
  if exists(job) then
    go(rest.queue)
    if lease ~= '' then pass_over(job, person, rest.ms) end
  end
end
if rest.note ~= '' and exists(job) then redis.call('RPUSH', P .. 'notes:' .. job, rest.note) end
return 1
