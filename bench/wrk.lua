-- One request, said in the environment, again and again; what it came to, as one line of JSON.
-- No `request` or `response` function: wrk then repeats prepared bytes, and costs the least. With PATHS, a file with
-- a path in each line, all of them in turn, each prepared too.

wrk.method = os.getenv("METHOD")
local body = os.getenv("BODY")
if body ~= "" then wrk.body = body end

local paths = os.getenv("PATHS")
if paths ~= "" then
    local requests, at = {}, 0
    function init()
        for path in io.lines(paths) do table.insert(requests, wrk.format(nil, path)) end
    end
    function request()
        at = at % #requests + 1
        return requests[at]
    end
end

local LINE = '{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"refused":%d,"broken":%d}\n'

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(LINE,
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
