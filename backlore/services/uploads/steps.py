"""The steps of unfinished uploads: atomic scripts that redis runs.

KEYS are those of one user: the upload, uploads, awaited, usage, files, trash, owner (see ROOM). The first of ARGV is
the upload's id. Times are redis' own. A step returns {"done", …}, or {WORD} when it can't be done; the second value of
`CREATE`, `SAVE`, `KEPT` and `FORGET` is the change of the bytes that are awaited. An upload belongs to the request that
has its token. When no bytes arrive another request may take over; the old token is void then.
"""

from backlore.clients.redis.script import CLOCK, Script
from backlore.services.files.steps import ROOM

PRELUDE = (
    CLOCK
    + """
local upload, uploads, awaited, usage, files, trash, owner = unpack(KEYS)
local id = ARGV[1]
"""
    + ROOM
    + """
local function get(field) return redis.call('HGET', upload, field) end
local function is_before(moment) return tonumber(now) < (tonumber(moment) or 0) end
local function await_nothing()
    local bytes = redis.call('HGET', awaited, id) or 0
    redis.call('HDEL', awaited, id)
    return -bytes
end
local function refusal(token)
    local ended, holder = unpack(redis.call('HMGET', upload, 'ended', 'holder'))
    if ended ~= '' then return 'upload' end
    if holder ~= token then return 'locked' end
end
"""
)

# ARGV: id, quota, most entries, room of all users, most unfinished uploads, most uploads with the finished ones, bytes,
# when it expires, how long redis keeps it (ms), its fields
CREATE = Script(
    PRELUDE
    + """
local _, quota, most, room, unfinished, known, bytes, expires, kept = unpack(ARGV)
if is_gone() then return {'gone'} end
if redis.call('HLEN', awaited) >= tonumber(unfinished) then return {'uploads'} end
if redis.call('ZCOUNT', uploads, now, '+inf') >= tonumber(known) then return {'uploads'} end
if not has_room(tonumber(bytes), 1, quota, most, room) then return {'quota'} end
redis.call('HSET', upload, 'ended', '', 'holder', '', 'until', 0, 'expires', expires, unpack(ARGV, 10))
redis.call('PEXPIRE', upload, kept)
redis.call('HSET', awaited, id, bytes)
redis.call('ZADD', uploads, expires, id)
return {'done', tonumber(bytes)}
"""
)

# ARGV: id, token, how long the lease lasts (µs)
HOLD = Script(
    PRELUDE
    + """
if get('ended') ~= '' or not is_before(get('expires')) then return {'upload'} end
if is_before(get('until')) then return {'locked'} end
redis.call('HSET', upload, 'holder', ARGV[2], 'until', later(ARGV[3]))
return {'done', redis.call('HGETALL', upload), redis.call('HGET', awaited, id) or 0}
"""
)

# Renews the lease; the third value returned is when the upload expires. ARGV: id, quota, most entries, room of all
# users, token, how long the lease lasts (µs), how long it waits for bytes unless its file is kept (µs), how long redis
# keeps it (ms), bytes, length, offset, pieces
SAVE = Script(
    PRELUDE
    + """
local _, quota, most, room, token, lease, life, kept, bytes, length, offset, pieces = unpack(ARGV)
local word = refusal(token)
if word then return {word} end
local known = redis.call('HGET', awaited, id)  -- until its file is kept
local more = known and bytes - known or 0
if more > 0 and not has_room(more, 0, quota, most, room) then return {'quota'} end
if known then redis.call('HSET', awaited, id, bytes) end
local expires = get('file') == '' and later(life) or get('expires')
redis.call('HSET', upload, 'until', later(lease), 'expires', expires, 'length', length, 'offset', offset,
    'pieces', pieces)
redis.call('PEXPIRE', upload, kept)
redis.call('ZADD', uploads, expires, id)
return {'done', more, expires}
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

# The file is kept: from now on its bytes count as a file's. The third value returned is when the upload expires. ARGV:
# id, token, file, how long the upload can still be found (µs); this never extends its life
KEPT = Script(
    PRELUDE
    + """
local word = refusal(ARGV[2])
if word then return {word} end
local expires = ('%.0f'):format(math.min(get('expires'), later(ARGV[4])))
redis.call('HSET', upload, 'file', ARGV[3], 'expires', expires)
redis.call('ZADD', uploads, expires, id)
return {'done', await_nothing(), expires}
"""
)

# Ends an upload: no bytes can be added any more. Its pieces must be deleted next, then FORGET follows.
# ARGV: id, which: only an `old` (expired) one, only a `free` one that no request holds, or `any`
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
return {'done', await_nothing()}
"""
)
