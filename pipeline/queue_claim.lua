-- Hands out the jobs that stand first among those that this person may take, urgent ones always first.
-- ARGV: person as JSON (id, lead, queues, languages, opt_outs, policies or false), how many, lease_ms, care as JSON
-- (day, points, mild), how many it may hold at once, only this job or '', the id of a golden job to mix in or '',
-- and the fields of a job that are wanted, of which the first two are its decision and its part.
-- Returns {reason, the jobs}: reason is '' or why there are fewer; a job is {id, those fields, its ticket}.

local person = cjson.decode(ARGV[1])
local wanted, lease_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local care = cjson.decode(ARGV[4])
local most, only = tonumber(ARGV[5]), ARGV[6]
local now = now_ms()

-- A job may have been answered already, and its answer not be known again. And an emptied Redis knows of no job: that
-- nothing is open would be a lie, told until the projection notices.
if redis.call('EXISTS', P .. 'offsets', P .. 'behind') ~= 1 then return {'rebuild', {}} end
while housekeep(now, 100) >= 100 do end

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

local queues, languages, opt_outs = set_of(person.queues), set_of(person.languages), set_of(person.opt_outs)
local policies = person.policies and set_of(person.policies)
local paused = redis.call('HGETALL', P .. 'paused')
for i = 1, #paused, 2 do
  if string.sub(paused[i + 1], -1) ~= '|' then queues[paused[i]] = nil end
end

-- What is left of the exposure that one person should bear in a day, and in a row.
local ceiling, reason = math.huge, ''
local seen = redis.call('HMGET', P .. 'care:' .. person.id, 'day', 'points', 'rest', 'own')
if math.max(tonumber(seen[3] or 0), tonumber(seen[4] or 0)) > now then return {'break', {}} end
if seen[1] == care.day and tonumber(seen[2]) >= care.points then ceiling, reason = care.mild, 'budget' end

-- Whether the person may take anything of a group.
local function opens(queue, language, weight, need)
  if not queues[queue] or tonumber(weight) > ceiling then return false end
  if language ~= '' and string.sub(language, 1, 1) ~= '*' and not languages[language] then return false end
  return need ~= 'lead' or person.lead
end

-- Whether they may take a bucket of such a group.
local function fits(named, barred)
  for policy in string.gmatch(named, '[^,]+') do
    if opt_outs[policy] or (policies and not policies[policy]) then return false end
  end
  return not string.find(',' .. barred .. ',', ',' .. person.id .. ',', 1, true)
end

local function may(bucket)
  local queue, language, named, weight, need, barred =
    string.match(bucket, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  return opens(queue, language, weight, need) and fits(named, barred)
end

-- The first bucket of a group from which the person may take, and its key, unless that lies behind `bound`.
local function first_of(heads, bound)
  local from, step = 0, 4
  while true do
    local found = redis.call('ZRANGE', heads, from, from + step - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local key = tonumber(found[i + 1])
      if bound and key > bound then return nil end
      if fits(string.match(found[i], '^[^|]*|[^|]*|([^|]*)|[^|]*|[^|]*|([^|]*)$')) then return found[i], key end
    end
    if #found < 2 * step then return nil end
    from, step = from + step, 128
  end
end

local function first_bucket(lane)
  local best, best_key
  local from, step = 0, 8
  while true do
    local tops = redis.call('ZRANGE', P .. 'tops:' .. lane, from, from + step - 1, 'WITHSCORES')
    for i = 1, #tops, 2 do
      -- What stands in the groups from here on stands behind what was found.
      if best and tonumber(tops[i + 1]) > best_key then return best end
      if opens(string.match(tops[i], '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')) then
        local bucket, key = first_of(P .. 'heads:' .. lane .. ':' .. tops[i], best_key)
        if bucket and (not best or key < best_key or (key == best_key and bucket < best)) then
          best, best_key = bucket, key
        end
      end
    end
    if #tops < 2 * step then return best end
    from, step = from + step, 128
  end
end

-- Takes the job that stands first out of its bucket; returns it and its queue.
local function first_job()
  local lane, bucket = 'urgent', first_bucket('urgent')
  if not bucket then lane, bucket = 'normal', first_bucket('normal') end
  if not bucket then return end
  local waiting = P .. 'bucket:' .. bucket
  local job = redis.call('ZPOPMIN', waiting)[1]
  reset_head(lane, bucket, redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES'))
  local queue = string.match(bucket, '^[^|]*')
  count(queue, 'open', -1)
  return job, queue
end

local function this_job()
  local bucket = bucket_of(only)
  local state = redis.call('HGET', P .. 'job:' .. only, 'state')
  if bucket and state == 'open' and may(bucket) then return only, quit_state(only) end
end

-- A job whose right answer is known, made up for this person from one that they have not met; it looks like any other.
local function golden_job(id)
  for _, queue in ipairs(person.queues) do
    local goldens = redis.call('HGETALL', P .. 'goldens:' .. queue)
    for i = 1, #goldens, 2 do
      local decision, bucket = goldens[i], goldens[i + 1]
      if may(bucket) and redis.call('SADD', P .. 'met:' .. person.id, decision) == 1 then
        local language, named, weight = string.match(bucket, '^[^|]*|([^|]*)|([^|]*)|([^|]*)|')
        local lane, due_ms = string.match(redis.call('HGET', P .. 'queues', queue) or 'normal|86400000|', '^([^|]*)|([^|]*)|')
        local born = now - 60000 * tonumber(string.sub(string.format('%d', now), -2)) / 10
        redis.call('HSET', P .. 'job:' .. id, 'decision', decision, 'queue', queue, 'lane', lane, 'language', language,
          'policies', named, 'weight', weight, 'need', 'reviewer', 'barred', '', 'harm', '0', 'key', '0',
          'born', string.format('%d', born), 'due', string.format('%d', born + due_ms), 'reviewers', '1',
          'part', 'golden', 'reason', 'band', 'print', '', 'hashes', '', 'state', 'leased', 'lease', '0', 'holder', '', 'until', '',
          'opened', '', 'widened', '', 'late', '', 'raised', '', 'saw', '[]', 'made', '[]', 'moved', '-1', 'gave', '')
        return id, queue
      end
    end
  end
end

local jobs = {}
local golden = ARGV[7]
local holds = redis.call('SCARD', P .. 'held:' .. person.id)
while #jobs < wanted do
  if holds >= most then
    reason = 'holds'
    break
  end
  local job, queue
  if only ~= '' then
    job, queue = this_job()
  else
    if golden ~= '' then job, queue = golden_job(golden) end
    if not job then job, queue = first_job() end
  end
  golden = ''
  if not job then
    if reason == '' then reason = 'empty' end
    break
  end
  local lease = redis.call('INCR', P .. 'leases')
  set_state(job, queue, 'leased', 'lease', lease, 'holder', person.id, 'until', now + lease_ms, 'opened', now)
  redis.call('ZADD', P .. 'until', now + lease_ms, job)
  redis.call('SADD', P .. 'held:' .. person.id, job)
  local fields = job_fields(job, unpack(ARGV, 8))
  local kind = fields[2] == 'golden' and 'golden:' or 'ticket:'
  jobs[#jobs + 1] = {job, fields, redis.call('GET', P .. kind .. fields[1])}
  holds = holds + 1
end
if #jobs == wanted then reason = '' end
return {reason, jobs}
