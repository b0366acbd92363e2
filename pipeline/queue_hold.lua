-- What the holder of a lease does with it, besides what is written to the log.
-- ARGV: job, person, lease or '' (a lead, whoever holds it), what, then by what:
--   check: nothing; renew: lease_ms; release: nothing; pend: verdict, ms to wait; undo: lease_ms; sent: nothing;
--   drop: keep_ms, ticket_ms
-- Returns {OK, the lease's end in ms}, or {LOST} where this person does not hold that lease (any more).

local job, person, lease, what = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()
while housekeep(now, 100) >= 100 do end

local f = job_fields(job, 'state', 'holder', 'lease', 'until', 'part')
local held = f[1] and f[1] ~= 'open'
if lease ~= '' then held = held and f[2] == person and f[3] == lease end
if not held then return {'LOST'} end

local function lease_until(ms)
  redis.call('HSET', P .. 'job:' .. job, 'until', ms)
  redis.call('ZADD', P .. 'until', ms, job)
end

-- Leaves a state but keeps the holder.
local function to_state(state)
  set_state(job, quit_state(job), state)
  redis.call('SADD', P .. 'held:' .. f[2], job)
end

if what == 'check' then
  if f[1] ~= 'leased' then return {'LOST'} end
elseif what == 'renew' then
  if f[1] ~= 'leased' then return {'LOST'} end
  lease_until(now + tonumber(ARGV[5]))
elseif what == 'release' then
  if f[1] ~= 'leased' then return {'LOST'} end
  open_again(job)
elseif what == 'drop' then
  if f[1] ~= 'leased' then return {'LOST'} end
  if f[5] == 'golden' then
    open_again(job)
  else
    close(job, 'superseded', '', '', {}, now, ARGV[5], ARGV[6])
  end
elseif what == 'pend' then
  if f[1] ~= 'leased' then return {'LOST'} end
  to_state('pending')
  redis.call('SET', P .. 'verdict:' .. job, ARGV[5])
  redis.call('ZADD', P .. 'pending', now + tonumber(ARGV[6]), job)
elseif what == 'undo' then
  if f[1] ~= 'pending' then return {'LOST'} end
  to_state('leased')
  lease_until(now + tonumber(ARGV[5]))
elseif what == 'sent' then
  if f[1] ~= 'leased' and f[1] ~= 'sending' then return {'LOST'} end
  to_state('sent')
  -- Sent verdicts count no more against what one person may hold.
  redis.call('SREM', P .. 'held:' .. f[2], job)
end
return {'OK', redis.call('HGET', P .. 'job:' .. job, 'until')}
