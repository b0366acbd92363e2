-- Returns pending verdicts whose time to be undone is over, as {job, lease, holder, verdict}; they can no longer be
-- undone. One whose sender died comes back after a while: the log takes the first of two equal verdicts.
-- ARGV: how many, ms after which an unsent one comes back

local now = now_ms()
local out = {}
for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'pending', '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))) do
  local f = job_fields(job, 'state', 'lease', 'holder', 'queue')
  local verdict = redis.call('GET', P .. 'verdict:' .. job)
  if not f[1] or not verdict then
    redis.call('ZREM', P .. 'pending', job)
  else
    if f[1] == 'pending' then
      count(f[4], 'pending', -1)
      set_state(job, f[4], 'sending')
    end
    redis.call('ZADD', P .. 'pending', now + tonumber(ARGV[2]), job)
    out[#out + 1] = {job, f[2], f[3], verdict}
  end
end
return out
