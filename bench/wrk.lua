-- One request, said in the environment, again and again; what it came to, as one line of JSON.
-- No `request` or `response` function: wrk then repeats prepared bytes, and costs the least.

wrk.method = os.getenv("METHOD")
local body = os.getenv("BODY")
if body ~= "" then wrk.body = body end

local LINE = '{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"refused":%d,"broken":%d}\n'

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(LINE,
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
