-- Does what time alone does to jobs, for a bounded number; returns how many it touched.

return housekeep(now_ms(), 500)
