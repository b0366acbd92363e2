-- The review queue in Redis: its keys, and what all of its scripts share. Every queue_*.lua follows this text.
--
-- weir:{review}:queues            hash    queue -> "lane|due_ms|where overdue jobs go|1 where sealed" from queues.yaml
-- weir:{review}:offsets           hash    "topic/partition" -> next offset to project; missing: emptied, rebuild
-- weir:{review}:behind            set     "topic/partition" whose past is not applied yet: nothing is handed out meanwhile
-- weir:{review}:early:TOPIC/P     set     offsets that were applied before their turn, by whoever wrote the record
-- weir:{review}:leases            string  the last lease number
-- weir:{review}:job:JOB           hash    one unclosed job; fields below
-- weir:{review}:ticket:DECISION   string  the ticket of a decision (zlib); expires once its job is closed
-- weir:{review}:members:JOB       set     the decisions that a job answers
-- weir:{review}:of:DECISION       string  the job of a decision, where the job is not named after it
-- weir:{review}:print:PRINT       string  the open job that all decisions of this fingerprint join
-- weir:{review}:closed:JOB        string  JSON of who closed it, how and in which queue; kept as long as the log
-- weir:{review}:tops:LANE         zset    GROUP -> key of its first job; GROUP is queue|language|weight|need, where
--                                         the language is empty for anybody and `*` once anybody may take it
-- weir:{review}:heads:LANE:GROUP  zset    bucket -> key of its first job
-- weir:{review}:bucket:BUCKET     zset    open job -> key (seconds of birth at the rate of ageing, minus harm)
-- weir:{review}:queue:QUEUE       zset    unclosed job -> ms of birth
-- weir:{review}:alike:QUEUE:BAND  set   unclosed jobs a perceptual hash of whose media has these digits at this place
-- weir:{review}:until             zset    leased job -> ms at which its lease ends
-- weir:{review}:held:PERSON       set     jobs that this person holds
-- weir:{review}:paused            hash    queue -> "offset|who paused it", or "offset|" where it goes on
-- weir:{review}:sealed:NAME       string  the sealed queue in which a content, or a medium of this digest, lies or lay
-- weir:{review}:lifts             zset    job -> ms from which whoever gave it away may have it again
-- weir:{review}:widens            zset    job with a language -> ms from which anybody may take it
-- weir:{review}:due               zset    job not yet overdue -> ms at which it is
-- weir:{review}:pending           zset    job with a verdict that can still be undone -> ms at which it goes out
-- weir:{review}:verdict:JOB       string  that verdict
-- weir:{review}:notes:JOB         list    JSON of what people noted
-- weir:{review}:care:PERSON       hash    exposure: day, points, run, last (ms), rest (ms until which a break lasts),
--                                         own (ms until which one of their own lasts), own_at (offset that says so)
-- weir:{review}:golden:DECISION    string  the ticket of a decision whose right answers are known
-- weir:{review}:goldens:QUEUE      hash    such a decision -> bucket in which its like would wait
-- weir:{review}:met:PERSON         set     such decisions that this person was handed
-- weir:{review}:flow:HOUR         hash    "queue|arrived", "queue|closed", "queue|overdue" -> count; two days
-- weir:{review}:counts            hash    "queue|state" -> unclosed jobs in that state, "queue|late" -> overdue ones
--
-- Fields of a job: decision (the newest member), queue, lane, language, policies, weight, need, barred, harm, key,
-- born, due, reviewers, part, reason, print, hashes (perceptual ones, of 16 digits each), state (open, leased, pending, sending, sent), lease, holder, until, opened, widened,
-- late, raised, saw (verdicts that count so far, JSON), made (decisions by people so far), moved (offset of the
-- last move), gave (who gave it away to others: they are among the barred until it is lifted).

local P = 'weir:{review}:'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function job_fields(job, ...)
  return redis.call('HMGET', P .. 'job:' .. job, ...)
end

local function bucket_named(queue, language, policies, weight, need, barred)
  return queue .. '|' .. language .. '|' .. policies .. '|' .. weight .. '|' .. need .. '|' .. barred
end

local function bucket_of(job)
  local f = job_fields(job, 'queue', 'language', 'policies', 'weight', 'need', 'barred', 'lane', 'key')
  if not f[1] then return nil end
  return bucket_named(f[1], f[2], f[3], f[4], f[5], f[6]), f[7], f[8]
end

-- Buckets are kept apart by what most people differ in, so that a claim meets few that its person may not take.
local function group_of(bucket)
  local queue, language, weight, need = string.match(bucket, '^([^|]*)|([^|]*)|[^|]*|([^|]*)|([^|]*)|')
  if string.sub(language, 1, 1) == '*' then language = '*' end
  return queue .. '|' .. language .. '|' .. weight .. '|' .. need
end

-- A bucket stands in its group where its first job stands, and a group in its lane where its first bucket stands.
local function reset_head(lane, bucket, first)
  local group = group_of(bucket)
  local heads = P .. 'heads:' .. lane .. ':' .. group
  if first[1] then
    redis.call('ZADD', heads, first[2], bucket)
  else
    redis.call('ZREM', heads, bucket)
  end
  local top = redis.call('ZRANGE', heads, 0, 0, 'WITHSCORES')
  if top[1] then
    redis.call('ZADD', P .. 'tops:' .. lane, top[2], group)
  else
    redis.call('ZREM', P .. 'tops:' .. lane, group)
  end
end

local function enter_at(job, bucket, lane, key)
  redis.call('ZADD', P .. 'bucket:' .. bucket, key, job)
  local first = redis.call('ZRANGE', P .. 'bucket:' .. bucket, 0, 0, 'WITHSCORES')
  if first[1] == job then reset_head(lane, bucket, first) end
end

local function enter(job)
  local bucket, lane, key = bucket_of(job)
  enter_at(job, bucket, lane, key)
end

local function leave(job)
  local bucket, lane = bucket_of(job)
  redis.call('ZREM', P .. 'bucket:' .. bucket, job)
  reset_head(lane, bucket, redis.call('ZRANGE', P .. 'bucket:' .. bucket, 0, 0, 'WITHSCORES'))
end

-- Two hashes of 64 bits that differ in at most five of them agree in one of these six bands of digits.
local BANDS = {{1, 3}, {4, 6}, {7, 9}, {10, 12}, {13, 14}, {15, 16}}

-- Lets a job be found (SADD), or not any more (SREM), by what its media look like.
local function like(command, job, queue, hashes)
  for hash in string.gmatch(hashes, '[^,]+') do
    for number, band in ipairs(BANDS) do
      local digits = string.sub(hash, band[1], band[2])
      redis.call(command, P .. 'alike:' .. queue .. ':' .. number .. ':' .. digits, job)
    end
  end
end

local function count(queue, what, by)
  redis.call('HINCRBY', P .. 'counts', queue .. '|' .. what, by)
end

local function flow(queue, what, ms)
  local hour = P .. 'flow:' .. string.format('%d', math.floor(ms / 3600000))
  if redis.call('HINCRBY', hour, queue .. '|' .. what, 1) == 1 then redis.call('EXPIRE', hour, 172800) end
end

-- Adds a person to names in their order, with commas between.
local function with_person(names, who)
  local list = {}
  for other in string.gmatch(names, '[^,]+') do
    if other == who then return names end
    list[#list + 1] = other
  end
  if who ~= '' then list[#list + 1] = who end
  table.sort(list)
  return table.concat(list, ',')
end

-- The names that are none of the others.
local function without(names, others)
  local list = {}
  for name in string.gmatch(names, '[^,]+') do
    if not string.find(',' .. others .. ',', ',' .. name .. ',', 1, true) then list[#list + 1] = name end
  end
  return table.concat(list, ',')
end

-- What lies in a sealed queue is sealed by its names: a content and the digests of its media.
local function seal(queue, names, keep_ms)
  if string.match(redis.call('HGET', P .. 'queues', queue) or '', '|1$') then
    for _, name in ipairs(names) do redis.call('SET', P .. 'sealed:' .. name, queue, 'PX', keep_ms) end
  end
end

-- Takes a job out of whatever state it is in; the caller says which comes next. Returns its queue, part, late, print,
-- language, hashes and who is barred from it.
local function quit_state(job)
  local f = job_fields(job, 'state', 'queue', 'holder', 'part', 'late', 'print', 'language', 'hashes', 'barred')
  if f[1] == 'open' then leave(job) end
  if f[1] == 'leased' then redis.call('ZREM', P .. 'until', job) end
  if f[1] == 'pending' or f[1] == 'sending' then
    redis.call('ZREM', P .. 'pending', job)
    redis.call('DEL', P .. 'verdict:' .. job)
  end
  if f[3] and f[3] ~= '' then redis.call('SREM', P .. 'held:' .. f[3], job) end
  count(f[2], f[1], -1)
  return f[2], f[4], f[5], f[6], f[7], f[8], f[9]
end

-- Puts a job of this queue into a state, and sets other fields with it.
local function set_state(job, queue, state, ...)
  redis.call('HSET', P .. 'job:' .. job, 'state', state, ...)
  count(queue, state, 1)
end

-- A golden job is one person's alone and goes with their lease.
local function open_again(job)
  local queue, part = quit_state(job)
  if part == 'golden' then
    redis.call('DEL', P .. 'job:' .. job)
    return
  end
  set_state(job, queue, 'open', 'holder', '', 'until', '', 'opened', '')
  enter(job)
end

-- Changes fields that the bucket or the counts are made of.
local function change(job, ...)
  local state = redis.call('HGET', P .. 'job:' .. job, 'state')
  if state == 'open' then leave(job) end
  redis.call('HSET', P .. 'job:' .. job, ...)
  if state == 'open' then enter(job) end
end

local function move(job, queue)
  local f = job_fields(job, 'queue', 'state', 'late', 'born', 'due', 'hashes')
  if f[1] == queue then return end
  like('SREM', job, f[1], f[6])
  like('SADD', job, queue, f[6])
  local lane, due = string.match(redis.call('HGET', P .. 'queues', queue) or 'normal|86400000|', '^([^|]*)|([^|]*)|')
  redis.call('ZREM', P .. 'queue:' .. f[1], job)
  redis.call('ZADD', P .. 'queue:' .. queue, f[4], job)
  count(f[1], f[2], -1)
  count(queue, f[2], 1)
  if f[3] == '1' then
    count(f[1], 'late', -1)
    count(queue, 'late', 1)
  end
  change(job, 'queue', queue, 'lane', lane)
  return tonumber(due)
end

-- A job that is overdue goes where its queue sends such jobs, with that queue's time; else it stands first.
local function overdue(job, now)
  local f = job_fields(job, 'queue', 'late', 'key', 'raised')
  redis.call('ZREM', P .. 'due', job)
  if not f[1] then return end
  flow(f[1], 'overdue', now)
  if f[2] ~= '1' then
    redis.call('HSET', P .. 'job:' .. job, 'late', '1')
    count(f[1], 'late', 1)
  end
  local target = string.match(redis.call('HGET', P .. 'queues', f[1]) or '', '^[^|]*|[^|]*|([^|]*)')
  if target and target ~= '' then
    local due = move(job, target)
    redis.call('ZADD', P .. 'due', now + due, job)
  elseif f[4] ~= '1' then
    change(job, 'key', string.format('%.17g', tonumber(f[3]) - 1000000), 'raised', '1')
  end
end

local function widen(job)
  redis.call('ZREM', P .. 'widens', job)
  local language = redis.call('HGET', P .. 'job:' .. job, 'language')
  if language and language ~= '' and string.sub(language, 1, 1) ~= '*' then
    change(job, 'language', '*' .. language, 'widened', '1')
  end
end

-- Who gave a job away is passed over until half the time that is left is over: others had their chance by then.
local function pass_over(job, who, ms)
  local f = job_fields(job, 'barred', 'gave', 'due', 'queue')
  -- Who must not judge it at all is not let in again.
  if without(who, f[1]) == '' and without(who, f[2]) ~= '' then return end
  local left = tonumber(f[3]) - ms
  if left <= 0 then
    left = tonumber(string.match(redis.call('HGET', P .. 'queues', f[4]) or '|86400000|', '|(%d+)|'))
  end
  change(job, 'barred', with_person(f[1], who), 'gave', with_person(f[2], who))
  redis.call('ZADD', P .. 'lifts', string.format('%d', ms + left / 2), job)
end

local function lift(job)
  redis.call('ZREM', P .. 'lifts', job)
  local f = job_fields(job, 'barred', 'gave')
  if f[1] then change(job, 'barred', without(f[1], f[2])) end
end

-- What time alone does to jobs, for at most `limit` of each kind; returns how many it touched.
local function housekeep(now, limit)
  local touched = 0
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'until', '-inf', now, 'LIMIT', 0, limit)) do
    if redis.call('HGET', P .. 'job:' .. job, 'state') == 'leased' then
      open_again(job)
    else
      redis.call('ZREM', P .. 'until', job)
    end
    touched = touched + 1
  end
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'widens', '-inf', now, 'LIMIT', 0, limit)) do
    widen(job)
    touched = touched + 1
  end
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'lifts', '-inf', now, 'LIMIT', 0, limit)) do
    lift(job)
    touched = touched + 1
  end
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, limit)) do
    overdue(job, now)
    touched = touched + 1
  end
  return touched
end

-- The job of a decision: named after it, or after an earlier one of its chain, or of equal media.
local function job_of(decision)
  return redis.call('GET', P .. 'of:' .. decision) or decision
end

local function exists(job)
  return redis.call('EXISTS', P .. 'job:' .. job) == 1
end

-- What a closed job leaves behind; `knew` are all who have had to do with it.
local function marker_of(how, queue, verdict, by, knew, made, now)
  return cjson.encode({how = how, queue = queue, verdict = verdict, by = by, knew = knew, made = made, at = now})
end

-- Ends a job: only its marker stays. Tickets stay a while, so that a verdict can be withdrawn.
local function close(job, how, verdict, by, made, now, keep_ms, ticket_ms)
  local gave = redis.call('HGET', P .. 'job:' .. job, 'gave') or ''
  local queue, _, late, print, language, hashes, barred = quit_state(job)
  local knew = with_person(barred, by)
  for who in string.gmatch(gave, '[^,]+') do knew = with_person(knew, who) end
  if late == '1' then count(queue, 'late', -1) end
  for _, member in ipairs(redis.call('SMEMBERS', P .. 'members:' .. job)) do
    redis.call('PEXPIRE', P .. 'ticket:' .. member, ticket_ms)
    redis.call('PEXPIRE', P .. 'of:' .. member, keep_ms)
  end
  if print ~= '' and redis.call('GET', P .. 'print:' .. print) == job then redis.call('DEL', P .. 'print:' .. print) end
  redis.call('ZREM', P .. 'queue:' .. queue, job)
  if language ~= '' then redis.call('ZREM', P .. 'widens', job) end
  redis.call('ZREM', P .. 'due', job)
  if gave ~= '' then redis.call('ZREM', P .. 'lifts', job) end
  like('SREM', job, queue, hashes)
  redis.call('DEL', P .. 'job:' .. job, P .. 'members:' .. job, P .. 'notes:' .. job)
  redis.call('SET', P .. 'closed:' .. job, marker_of(how, queue, verdict, by, knew, made, now), 'PX', keep_ms)
  flow(queue, 'closed', now)
end

-- A person's decision answers one member of a job; the last one answered closes it.
local function settle(job, member, made, verdict, by, now, keep_ms, ticket_ms)
  redis.call('SET', P .. 'of:' .. made, job, 'PX', keep_ms)
  if not exists(job) then
    local marker = redis.call('GET', P .. 'closed:' .. job)
    if not marker then return end
    local old = cjson.decode(marker)
    local list = {}
    if old.verdict == verdict then list = old.made end
    for _, known in ipairs(list) do
      if known == made then return end
    end
    list[#list + 1] = made
    local knew = with_person(old.knew, by)
    redis.call('SET', P .. 'closed:' .. job, marker_of('verdict', old.queue, verdict, by, knew, list, now), 'PX', keep_ms)
    return
  end
  if redis.call('SREM', P .. 'members:' .. job, member) == 0 then return end
  redis.call('PEXPIRE', P .. 'ticket:' .. member, ticket_ms)
  redis.call('PEXPIRE', P .. 'of:' .. member, keep_ms)
  local list = cjson.decode(redis.call('HGET', P .. 'job:' .. job, 'made') or '[]')
  list[#list + 1] = made
  if redis.call('SCARD', P .. 'members:' .. job) == 0 then
    close(job, 'verdict', verdict, by, list, now, keep_ms, ticket_ms)
    return
  end
  redis.call('HSET', P .. 'job:' .. job, 'made', cjson.encode(list), 'decision',
    redis.call('SRANDMEMBER', P .. 'members:' .. job))
end

-- Whether the record at this offset is to be applied; `early` says that its writer applies it before its turn.
local function turn(partition, offset, early)
  local done = tonumber(redis.call('HGET', P .. 'offsets', partition) or '-1')
  local key = P .. 'early:' .. partition
  if early then
    return done >= 0 and offset >= done and redis.call('SADD', key, offset) == 1
  end
  return redis.call('SREM', key, offset) == 0
end

-- Whether what the projection believes to have projected is what Redis has; not so once Redis was emptied.
local function in_step(partition, from)
  return redis.call('HGET', P .. 'offsets', partition) == from
end

local function advance(partition, to)
  redis.call('HSET', P .. 'offsets', partition, to)
end
