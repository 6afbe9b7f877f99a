"""The steps of the catalog: atomic scripts that redis runs.

KEYS are those of one user: files, newest, trash, trashed, hashes, usage, moves, blob, awaited, owner (see ROOM). The
first of ARGV is how long the trash is kept, in µs. Times are redis' own, including those in the text of a file.
A change returns {"done" or "same", …, change of the user's bytes}, or {WORD} when it can't be made. `PAGE`, `CLAIM`,
`MOVED` and `LOOK_LATER` return something else.

Law: a record that another version wrote and this one can't read is left as it is. That is checked before anything is
changed: if a script fails in the middle, what it has done stays done.
"""

from backlore.clients.redis.script import CLOCK, Script

RECORD = 512  # bytes of the quota that an entry takes besides its content: for its record in redis

# What a user has: entries are files, also those in the trash, and unfinished uploads; bytes include those that uploads
# still await. `owner` is the hash of the user who must exist for anything to be added; the key `files` if no user must.
ROOM = f"""
local function is_gone()
    if owner == files then return false end
    return redis.call('HEXISTS', owner, 'email') == 0 or redis.call('HGET', owner, 'state') == 'destroying'
end
local function entries()
    return redis.call('HLEN', files) + redis.call('HLEN', trash) + redis.call('HLEN', awaited)
end
local function used()
    local bytes = tonumber(redis.call('HGET', usage, 'bytes')) or 0
    for _, each in ipairs(redis.call('HVALS', awaited)) do bytes = bytes + each end
    return bytes + entries() * {RECORD}
end
-- whether there is room for so many bytes and entries more, of this user and of all
local function has_room(bytes, more, quota, most, room)
    return bytes <= tonumber(room) and entries() + more <= tonumber(most)
        and used() + bytes + more * {RECORD} <= tonumber(quota)
end
"""

PRELUDE = (
    CLOCK
    + """
local files, newest, trash, trashed, hashes, usage, moves, _, awaited, owner = unpack(KEYS)
local kept = ARGV[1]
local charged = 0
local function charge(size)
    charged = charged + size
    redis.call('HINCRBY', usage, 'bytes', size)
    redis.call('HINCRBY', usage, 'changes', 1)
end
local function blob_key(id) return KEYS[8] .. ':' .. id end
local function count(id, kind, change)
    redis.call('HINCRBY', blob_key(id), kind, change)
    redis.call('HINCRBY', blob_key(id), 'version', 1)
end
-- where the blob belongs may have changed
local function settle(id)
    local size, hash, live, dead, where, pushed =
        unpack(redis.call('HMGET', blob_key(id), 'size', 'hash', 'live', 'trash', 'where', 'pushed'))
    local belongs = tonumber(live) > 0 and 'files' or tonumber(dead) > 0 and 'trash' or ''
    if belongs == '' then
        if hash ~= '' then redis.call('HDEL', hashes, hash) end
        charge(-size)
    end
    -- NX: a process that has claimed it goes on undisturbed, and looks again when it is done
    if belongs == '' or belongs ~= where or pushed ~= size then redis.call('ZADD', moves, 'NX', now, id) end
end
local FIELDS = {id = 'string', name = 'string', type = 'string', hash = 'string',
    size = 'number', created = 'number', changed = 'number'}
-- the file that a text encodes; nil if there is no text, or this version can't read it
local function parse(text)
    local is_json, file = pcall(cjson.decode, text)
    if not is_json or type(file) ~= 'table' or type(file.blobs) ~= 'table' or #file.blobs == 0 then return nil end
    for field, kind in pairs(FIELDS) do
        if type(file[field]) ~= kind then return nil end
    end
    for _, each in ipairs(file.blobs) do
        if type(each) ~= 'table' or type(each[1]) ~= 'string' or type(each[2]) ~= 'number' then return nil end
    end
    return file
end
-- whether this version can read the record of a blob; true if there is none
local function is_readable(id)
    local known = redis.call('HMGET', blob_key(id), 'size', 'live', 'trash', 'version', 'pushed', 'hash', 'where')
    for place = 1, 7 do
        if not known[place] or place <= 5 and not tonumber(known[place]) then
            return redis.call('EXISTS', blob_key(id)) == 0
        end
    end
    return true
end
-- the file that a text encodes, if this version can read it and the records of its blobs
local function read(text)
    local file = parse(text)
    for _, each in ipairs(file and file.blobs or {}) do
        if not is_readable(each[1]) then return nil end
    end
    return file
end
local function recount(file, from, to)
    for _, each in ipairs(file.blobs) do
        if from then count(each[1], from, -1) end
        if to then count(each[1], to, 1) end
        settle(each[1])
    end
end
-- the moment at which an entry joins a list, later than all others there, so that pages show each entry once
local function stamp(list)
    local last = redis.call('ZREVRANGE', list, 0, 0, 'WITHSCORES')[2]
    return ('%.0f'):format(math.max(now, (last or 0) + 1))
end
local function bury(text, file)
    redis.call('HSET', trash, file.id, text)
    redis.call('ZADD', trashed, stamp(trashed), file.id)
    redis.call('ZADD', moves, later(kept), '~' .. file.id)
    recount(file, 'live', 'trash')
end
local function forget_dead(id)
    redis.call('HDEL', trash, id)
    redis.call('ZREM', trashed, id)
    redis.call('ZREM', moves, '~' .. id)
end
-- 1 if it was there, else 0; nil, with nothing changed, if this version can't read it
local function take_from_trash(id, to)
    local text = redis.call('HGET', trash, id)
    local file = read(text)
    if text and not file then return nil end
    if file then recount(file, 'trash', to) end
    forget_dead(id)
    return file and 1 or 0
end
-- a quote within a name is escaped, so nothing in a name looks like a field
local function date(text, field, moment)
    return (text:gsub('"' .. field .. '":%d+', '"' .. field .. '":' .. moment, 1))
end
-- keeps a file; returns its text, with the time of the change in it
local function set(name, text, old, created)
    local moment = stamp(newest)
    text = date(text, 'changed', moment)
    if created then text = date(text, 'created', moment) end
    redis.call('HSET', files, name, text)
    redis.call('ZADD', newest, moment, name)
    if not old then redis.call('HINCRBY', usage, 'files', 1) end
    return text
end
"""
    + ROOM
)

# ARGV: kept, name, file, blob, size, hash, expected, where, pushed, id of its upload or "", quota, most entries,
# room of all users
PUT = Script(
    PRELUDE
    + """
local _, name, text, blob, size, hash, expected, where, pushed, upload, quota, most, room = unpack(ARGV)
if is_gone() then return {'gone'} end
local old = redis.call('HGET', files, name)
local was = read(old)
if expected == '*' and old then return {'exists'} end
if expected ~= '' and expected ~= '*' and (not was or was.id ~= expected) then return {'changed'} end
if old and not was then return {'exists'} end
local is_same = was and was.hash == hash and was.type == cjson.decode(text).type
local known = redis.call('HGET', hashes, hash)
if known and not is_readable(known) then known = false end
local awaits = redis.call('HGET', awaited, upload)  -- its bytes, which count since they were announced
local more = (known and 0 or size) - (awaits or 0)
if not is_same and not has_room(more, awaits and 0 or 1, quota, most, room) then return {'quota'} end
if awaits then
    redis.call('HDEL', awaited, upload)
    charged = -awaits
end
if is_same then return {'same', old, charged} end
if not known then
    redis.call('HSET', blob_key(blob), 'size', size, 'hash', hash, 'live', 0, 'trash', 0, 'version', 0,
        'where', where, 'pushed', pushed)
    redis.call('HSET', hashes, hash, blob)
    charge(size)
else
    text = text:gsub(blob, known)
end
count(known or blob, 'live', 1)
settle(known or blob)
if old then bury(old, was) end
return {'done', set(name, text, old, true), charged}
"""
)

# ARGV: kept, name, old text or "", new text, blob, its bytes before, bytes added, quota, most entries, room of all
APPEND = Script(
    PRELUDE
    + """
local _, name, before, text, blob, at, more, quota, most, room = unpack(ARGV)
if is_gone() then return {'gone'} end
local old = redis.call('HGET', files, name)
if old and not (parse(old) and is_readable(blob)) then return {'exists'} end
if (old or '') ~= before then return {'changed'} end
if not has_room(tonumber(more), old and 0 or 1, quota, most, room) then return {'quota'} end
if at == '0' then
    redis.call('HSET', blob_key(blob), 'size', 0, 'hash', '', 'live', 1, 'trash', 0, 'version', 0,
        'where', '', 'pushed', 0)
end
redis.call('HINCRBY', blob_key(blob), 'size', more)
count(blob, 'live', 0)
charge(more)
settle(blob)
return {'done', set(name, text, old, not old), charged}
"""
)

# ARGV: kept, name, expected
TAKE = Script(
    PRELUDE
    + """
local _, name, expected = unpack(ARGV)
local old = redis.call('HGET', files, name)
local was = read(old)
if old and not was then return {'missing'} end
if old and expected ~= '' and was.id ~= expected then return {'changed'} end
redis.call('HDEL', files, name)
redis.call('ZREM', newest, name)
if not old then return {'missing'} end
redis.call('HINCRBY', usage, 'files', -1)
bury(old, was)
return {'done', old, charged}
"""
)

# ARGV: kept, id, the text in the trash, the new text, name
RESTORE = Script(
    PRELUDE
    + """
local _, id, before, text, name = unpack(ARGV)
if is_gone() then return {'gone'} end
if redis.call('HGET', trash, id) ~= before then return {'missing'} end
if redis.call('HEXISTS', files, name) == 1 then return {'exists'} end
if not take_from_trash(id, 'live') then return {'missing'} end
return {'done', set(name, text), charged}
"""
)

# ARGV: kept, ids
ERASE = Script(
    PRELUDE
    + """
local erased = 0
for place = 2, #ARGV do
    erased = erased + (take_from_trash(ARGV[place], nil) or 0)
end
return {'done', erased, charged}
"""
)

# Drops unreadable entries of a user who is being erased; the check finds their blobs. ARGV: kept, "files" or "trash"
DROP = Script(
    PRELUDE
    + """
for _, name in ipairs(redis.call('HKEYS', ARGV[2] == 'files' and files or trash)) do
    if ARGV[2] == 'trash' then
        if not read(redis.call('HGET', trash, name)) then forget_dead(name) end
    elseif not read(redis.call('HGET', files, name)) then
        redis.call('HDEL', files, name)
        redis.call('ZREM', newest, name)
    end
end
return {'done', '', charged}
"""
)

# Drops the sums of a user who has no files any more. ARGV: kept
FORGET = Script(
    PRELUDE
    + """
if redis.call('EXISTS', files, trash) == 0 then redis.call('DEL', usage) end
return {'done', '', charged}
"""
)

# Ends all links that were made so far. ARGV: kept
REVOKE = Script(
    PRELUDE
    + """
if is_gone() then return {'gone'} end
redis.call('HINCRBY', usage, 'revoked', 1)
return {'done', '', charged}
"""
)

# A page of a list, the newest first. Returns where the next one begins, "0" at the end, then each text and its moment.
# KEYS: list, texts. ARGV: before which moment, 0 for no bound; how many, exceeded only by entries of equal moments
PAGE = Script(
    """
local list, texts = unpack(KEYS)
local upper, limit = ARGV[1] == '0' and '+inf' or '(' .. ARGV[1], tonumber(ARGV[2])
local found = redis.call('ZREVRANGEBYSCORE', list, upper, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
local last = #found == 2 * limit and found[#found] or '0'
if last ~= '0' then found = redis.call('ZREVRANGEBYSCORE', list, upper, last, 'WITHSCORES') end
local page = {last}
for place = 1, #found, 2 do
    local text = redis.call('HGET', texts, found[place])
    if text then
        table.insert(page, text)
        table.insert(page, found[place + 1])
    end
end
return page
"""
)

# Claims the blobs that are due, and drops the files that leave the trash. Returns the blobs with their records, the ids
# in the trash that can't be read, the bytes freed (negative), and until when the claim lasts. ARGV: kept, how long the
# claim lasts (µs), how many, after how long to look again at what can't be read (µs)
CLAIM = Script(
    PRELUDE
    + """
local claimed, unread, till = {}, {}, later(ARGV[2])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', moves, '-inf', now, 'LIMIT', 0, ARGV[3])) do
    local known = redis.call('HMGET', blob_key(id), 'size', 'hash', 'live', 'trash', 'version', 'where', 'pushed')
    if id:sub(1, 1) == '~' then
        if not take_from_trash(id:sub(2), nil) then
            redis.call('ZADD', moves, later(ARGV[4]), id)
            table.insert(unread, id)
        end
    elseif known[1] then
        redis.call('ZADD', moves, till, id)
        table.insert(claimed, {id, unpack(known)})
    else
        redis.call('ZREM', moves, id)
    end
end
return {claimed, unread, charged, till}
"""
)

# What S3 has is recorded in any case; the move is done only if the blob has not changed since.
# ARGV: kept, blob, version, where, pushed
MOVED = Script(
    PRELUDE
    + """
local _, id, version, where, pushed = unpack(ARGV)
if redis.call('EXISTS', blob_key(id)) == 0 then return redis.call('ZREM', moves, id) end
redis.call('HSET', blob_key(id), 'where', where, 'pushed', pushed)
if redis.call('HGET', blob_key(id), 'version') ~= version then return redis.call('ZADD', moves, now, id) end
local live, dead = unpack(redis.call('HMGET', blob_key(id), 'live', 'trash'))
if live == '0' and dead == '0' then redis.call('DEL', blob_key(id)) end
return redis.call('ZREM', moves, id)
"""
)

# KEYS: agenda of all users. ARGV: user, the moment that was seen, the next one or ""
LOOK_LATER = Script(
    """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1])) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
"""
)
