-- Projects a run of tickets of one partition into jobs.
-- ARGV: partition, offset that Redis should stand at, offset to stand at afterwards, keep_ms, ticket_ms, points of
-- ageing an hour, then for each ticket: offset, JSON (decision, names: its content and the digests of its media, supersedes,
-- person, verdict, by, job or null), ticket (zlib).
-- Returns LOST where Redis does not stand at that offset, else the number of jobs opened.

if not in_step(ARGV[1], ARGV[2]) then return 'LOST' end

local now = now_ms()
local keep_ms, ticket_ms = ARGV[4], ARGV[5]
local ageing = tonumber(ARGV[6])
local opened = 0

-- The same sum in the same order as `pipeline.review.key`.
local function key_of(born, harm)
  return born / 1000 * ageing / 3600 - harm
end

local function open(id, decision, job, ticket)
  local fields = {'decision', decision, 'state', 'open', 'lease', '0', 'holder', '', 'until', '', 'opened', '',
    'widened', '', 'late', '', 'raised', '', 'saw', '[]', 'made', '[]', 'moved', '-1', 'gave', ''}
  for field, value in pairs(job) do
    if field ~= 'widens' then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  local key = string.format('%.17g', key_of(job.born, job.harm))
  fields[#fields + 1] = 'key'
  fields[#fields + 1] = key
  local lane = string.match(redis.call('HGET', P .. 'queues', job.queue) or '', '^([^|]*)|') or 'normal'
  fields[#fields + 1] = 'lane'
  fields[#fields + 1] = lane
  redis.call('HSET', P .. 'job:' .. id, unpack(fields))
  redis.call('SADD', P .. 'members:' .. id, decision)
  redis.call('SET', P .. 'ticket:' .. decision, ticket)
  redis.call('ZADD', P .. 'queue:' .. job.queue, job.born, id)
  if job.widens then redis.call('ZADD', P .. 'widens', job.widens, id) end
  redis.call('ZADD', P .. 'due', job.due, id)
  like('SADD', id, job.queue, job.hashes)
  if job.print ~= '' then redis.call('SET', P .. 'print:' .. job.print, id) end
  count(job.queue, 'open', 1)
  flow(job.queue, 'arrived', now)
  enter_at(id, bucket_named(job.queue, job.language, job.policies, job.weight, job.need, job.barred), lane, key)
  opened = opened + 1
end

local function join(id, decision, ticket)
  redis.call('SADD', P .. 'members:' .. id, decision)
  redis.call('SET', P .. 'of:' .. decision, id)
  redis.call('SET', P .. 'ticket:' .. decision, ticket)
end

-- The newer decision takes the older one's place in its job.
local function replace(id, old, item, ticket)
  redis.call('SREM', P .. 'members:' .. id, old)
  redis.call('DEL', P .. 'ticket:' .. old)
  join(id, item.decision, ticket)
  redis.call('HSET', P .. 'job:' .. id, 'decision', item.decision)
  if not item.job then return end
  local state = redis.call('HGET', P .. 'job:' .. id, 'state')
  if item.job.queue ~= redis.call('HGET', P .. 'job:' .. id, 'queue')
    and redis.call('HGET', P .. 'job:' .. id, 'moved') == '-1' then
    move(id, item.job.queue)
  end
  local seen = job_fields(id, 'queue', 'hashes')
  if seen[2] ~= item.job.hashes then
    like('SREM', id, seen[1], seen[2])
    like('SADD', id, seen[1], item.job.hashes)
    redis.call('HSET', P .. 'job:' .. id, 'hashes', item.job.hashes)
  end
  -- It keeps its birth and due time: an upload that is scored again has waited as long as before.
  if state == 'open' then
    local key = key_of(tonumber(redis.call('HGET', P .. 'job:' .. id, 'born')), item.job.harm)
    if redis.call('HGET', P .. 'job:' .. id, 'raised') == '1' then key = key - 1000000 end
    change(id, 'policies', item.job.policies, 'weight', item.job.weight, 'key', string.format('%.17g', key),
      'harm', item.job.harm, 'reason', item.job.reason, 'reviewers', item.job.reviewers)
  end
end

local function apply(item, ticket)
  local job = item.job
  if job == cjson.null then job = nil end
  item.job = job
  if job then seal(job.queue, item.names, keep_ms) end
  local supersedes = item.supersedes
  if supersedes == cjson.null then supersedes = nil end
  if item.person then
    if supersedes then
      settle(job_of(supersedes), supersedes, item.decision, item.verdict, item.by, now, keep_ms, ticket_ms)
    end
    redis.call('SET', P .. 'ticket:' .. item.decision, ticket, 'PX', ticket_ms)
    -- An answer that escalates opens a second job, which is the first of its own chain.
    if job and not exists(item.decision) and redis.call('EXISTS', P .. 'closed:' .. item.decision) == 0 then
      open(item.decision, item.decision, job, ticket)
      redis.call('DEL', P .. 'of:' .. item.decision)
      pass_over(item.decision, item.by, job.born)
    end
    return
  end
  local id = job_of(item.decision)
  if exists(id) or redis.call('EXISTS', P .. 'closed:' .. id) == 1 then return end
  local root = supersedes and job_of(supersedes)
  if root and exists(root) then
    if job or redis.call('HGET', P .. 'job:' .. root, 'state') ~= 'open' then
      replace(root, supersedes, item, ticket)
    elseif redis.call('SCARD', P .. 'members:' .. root) > 1 then
      redis.call('SREM', P .. 'members:' .. root, supersedes)
      redis.call('DEL', P .. 'ticket:' .. supersedes)
      -- The job is shown by a decision that it still answers.
      if redis.call('HGET', P .. 'job:' .. root, 'decision') == supersedes then
        redis.call('HSET', P .. 'job:' .. root, 'decision', redis.call('SRANDMEMBER', P .. 'members:' .. root))
      end
    else
      redis.call('SET', P .. 'of:' .. item.decision, root, 'PX', keep_ms)
      close(root, 'superseded', '', '', {}, now, keep_ms, ticket_ms)
    end
  elseif job then
    local shared = job.print ~= '' and redis.call('GET', P .. 'print:' .. job.print)
    if shared and exists(shared) then
      join(shared, item.decision, ticket)
    else
      open(item.decision, item.decision, job, ticket)
    end
  end
end

for i = 7, #ARGV, 3 do
  apply(cjson.decode(ARGV[i + 1]), ARGV[i + 2])
end
advance(ARGV[1], ARGV[3])
return opened
