"""The steps of unfinished uploads, each whole or not at all: scripts that redis runs.

Each takes the keys of one user: the upload, uploads, awaited, usage; and first the upload's id. Times are redis' own.
Each gives {"done", …}, or {WORD} when it can't be done. An upload is one request's alone while it bears its token;
a token that was taken over, since no bytes came, counts no more.
"""

from backlore.clients.script import CLOCK, Script

PRELUDE = (
    CLOCK
    + """
local upload, uploads, awaited, usage = unpack(KEYS)
local id = ARGV[1]
local function get(field) return redis.call('HGET', upload, field) end
local function is_before(moment) return tonumber(now) < (tonumber(moment) or 0) end
local function used()
    local bytes = tonumber(redis.call('HGET', usage, 'bytes')) or 0
    for _, each in ipairs(redis.call('HVALS', awaited)) do bytes = bytes + each end
    return bytes
end
local function refusal(token)
    local ended, holder = unpack(redis.call('HMGET', upload, 'ended', 'holder'))
    if ended ~= '' then return 'upload' end
    if holder ~= token then return 'locked' end
end
"""
)

# ARGV: id, quota, how many may be unfinished, bytes, when it expires, how long redis keeps it (ms), its fields
CREATE = Script(
    PRELUDE
    + """
local _, quota, most, bytes, expires, kept = unpack(ARGV)
if redis.call('HLEN', awaited) >= tonumber(most) then return {'uploads'} end
if used() + bytes > tonumber(quota) then return {'quota'} end
redis.call('HSET', upload, 'ended', '', 'holder', '', 'until', 0, 'expires', expires, unpack(ARGV, 7))
redis.call('PEXPIRE', upload, kept)
redis.call('HSET', awaited, id, bytes)
redis.call('ZADD', uploads, expires, id)
return {'done'}
"""
)

# ARGV: id, token, for how long (µs)
HOLD = Script(
    PRELUDE
    + """
if get('ended') ~= '' or not is_before(get('expires')) then return {'upload'} end
if is_before(get('until')) then return {'locked'} end
redis.call('HSET', upload, 'holder', ARGV[2], 'until', later(ARGV[3]))
return {'done', redis.call('HGETALL', upload)}
"""
)

# Whoever holds it stays so; when it expires. ARGV: id, token, for how long (µs), how long it waits for bytes (µs), how
# long redis keeps it (ms), quota, bytes, length, offset, pieces
SAVE = Script(
    PRELUDE
    + """
local _, token, lease, life, kept, quota, bytes, length, offset, pieces = unpack(ARGV)
local word = refusal(token)
if word then return {word} end
local more = bytes - (redis.call('HGET', awaited, id) or bytes)
if more > 0 and used() + more > tonumber(quota) then return {'quota'} end
local expires = later(life)
redis.call('HSET', upload, 'until', later(lease), 'expires', expires, 'length', length, 'offset', offset,
    'pieces', pieces)
redis.call('PEXPIRE', upload, kept)
redis.call('ZADD', uploads, expires, id)
if get('file') == '' then redis.call('HSET', awaited, id, bytes) end
return {'done', expires}
"""
)

# ARGV: id, token
RELEASE = Script(
    PRELUDE
    + """
if get('holder') == ARGV[2] then redis.call('HSET', upload, 'holder', '', 'until', 0) end
return {'done'}
"""
)

# The file is kept: its bytes count as such from now on. ARGV: id, token, file
KEPT = Script(
    PRELUDE
    + """
local word = refusal(ARGV[2])
if word then return {word} end
redis.call('HSET', upload, 'file', ARGV[3])
redis.call('HDEL', awaited, id)
return {'done'}
"""
)

# Nobody adds to it any more; what it has is to be deleted, and then it is forgotten.
# ARGV: id, which: `old` ones only, `free` ones that nobody holds, or `any`
END = Script(
    PRELUDE
    + """
if redis.call('EXISTS', upload) == 0 then return {'upload'} end
if ARGV[2] == 'old' and is_before(get('expires')) then return {'done', get('expires')} end
if ARGV[2] ~= 'any' and is_before(get('until')) then return {'locked'} end
redis.call('HSET', upload, 'ended', 1)
return {'done', '', get('pieces')}
"""
)

# ARGV: id
FORGET = Script(
    PRELUDE
    + """
redis.call('DEL', upload)
redis.call('ZREM', uploads, id)
redis.call('HDEL', awaited, id)
return {'done'}
"""
)
