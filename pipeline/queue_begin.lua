-- Lets the projection of partitions begin that never began, all in one: nobody claims between two of them.
-- ARGV: for each partition: its name, where it begins, where the log ends: what lies between must be applied first
-- Returns where each partition stands.

local stands = {}
for i = 1, #ARGV, 3 do
  local name, from, to = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HSETNX', P .. 'offsets', name, from) == 1 and tonumber(to) > tonumber(from) then
    redis.call('SADD', P .. 'behind', name)
  end
  stands[#stands + 1] = redis.call('HGET', P .. 'offsets', name)
end
return stands
