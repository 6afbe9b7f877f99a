"""The steps of the check: each examines some records of one user once more, atomically, and mends them if asked.

Laws: a fault is judged in the same step that mends it, so that a change in between is never undone. What was counted
outside of a step is used only if it hasn't changed since.
KEYS are those of `files.steps`. ARGV: how long the trash is kept, "1" to mend, and what stands above each step.
A step returns {"done", what was wrong, change of the user's bytes}.
"""

from backlore.clients.redis.script import Script
from backlore.services.files.steps import PRELUDE

LOOK = (
    PRELUDE
    + """
local mend = ARGV[2] == '1'
local wrong = {}
local function is(value) return value ~= false and value ~= 0 end
local function known_of(id, ...) return unpack(redis.call('HMGET', blob_key(id), ...)) end
"""
)

# Whether files are listed with their dates. ARGV: "files" or "trash", names or ids
LISTED = Script(
    LOOK
    + """
local function list_file(name)
    local there, listed = redis.call('HGET', files, name), is(redis.call('ZSCORE', newest, name))
    if is(there) == listed then return false end
    if not mend then return true end
    if listed then redis.call('ZREM', newest, name)
    else redis.call('ZADD', newest, cjson.decode(there).changed, name) end
    return true
end
local function list_dead(id)
    local there, due = is(redis.call('HEXISTS', trash, id)), '~' .. id
    if is(redis.call('ZSCORE', trashed, id)) == there and is(redis.call('ZSCORE', moves, due)) == there then
        return false
    end
    if not mend then return true end
    if there then
        redis.call('ZADD', trashed, 'NX', now, id)
        redis.call('ZADD', moves, 'NX', later(kept), due)
    else
        redis.call('ZREM', trashed, id)
        redis.call('ZREM', moves, due)
    end
    return true
end
for place = 4, #ARGV do
    local list = ARGV[3] == 'files' and list_file or list_dead
    if list(ARGV[place]) then table.insert(wrong, ARGV[place]) end
end
return {'done', wrong, charged}
"""
)

# Whether contents can be found by their hash. ARGV: hash, blob, hash, blob, …
HASHED = Script(
    LOOK
    + """
local function has(id, hash)
    local its, live, dead = known_of(id, 'hash', 'live', 'trash')
    return its == hash and (tonumber(live) > 0 or tonumber(dead) > 0)
end
for place = 3, #ARGV, 2 do
    local hash, id = ARGV[place], ARGV[place + 1]
    local known = redis.call('HGET', hashes, hash)
    local right = known and has(known, hash) and known or has(id, hash) and id
    if right ~= known then
        table.insert(wrong, hash)
        if mend and right then redis.call('HSET', hashes, hash, right)
        elseif mend then redis.call('HDEL', hashes, hash) end
    end
end
return {'done', wrong, charged}
"""
)

# The references to a content. ARGV: blob, its version when counting began, references in files, and in the trash. Wrong
# is the blob, or "changed".
COUNTED = Script(
    LOOK
    + """
local _, _, id, version, in_files, in_trash = unpack(ARGV)
local now_version, live, dead, size = known_of(id, 'version', 'live', 'trash', 'size')
if now_version ~= version then return {'done', {'changed'}, 0} end
if live == in_files and dead == in_trash then return {'done', {}, 0} end
if mend then
    redis.call('HSET', blob_key(id), 'live', in_files, 'trash', in_trash)
    redis.call('HINCRBY', blob_key(id), 'version', 1)
    local had = tonumber(live) > 0 or tonumber(dead) > 0
    if not had and (in_files ~= '0' or in_trash ~= '0') then charge(tonumber(size)) end
    settle(id)
end
return {'done', {id}, charged}
"""
)

# A file whose content has no record. ARGV: "files" or "trash", name or id, its text, blob, size, hash, both counts
KNOWN = Script(
    LOOK
    + """
local _, _, kind, field, text, id, size, hash, in_files, in_trash = unpack(ARGV)
if redis.call('HGET', kind == 'files' and files or trash, field) ~= text then return {'done', {}, 0} end
if is(redis.call('EXISTS', blob_key(id))) then return {'done', {}, 0} end
if mend then
    redis.call('HSET', blob_key(id), 'size', size, 'hash', hash, 'live', in_files, 'trash', in_trash, 'version', 0,
        'where', '', 'pushed', 0)
    if hash ~= '' then redis.call('HSETNX', hashes, hash, id) end
    charge(tonumber(size))
    settle(id)
end
return {'done', {id}, charged}
"""
)

# Whether contents that need a move are named for one. ARGV: "1" if there is a bucket, blobs
NAMED = Script(
    LOOK
    + """
for place = 4, #ARGV do
    local id = ARGV[place]
    local live, dead, where, pushed, size = known_of(id, 'live', 'trash', 'where', 'pushed', 'size')
    if live and not redis.call('ZSCORE', moves, id) then
        local belongs = tonumber(live) > 0 and 'files' or tonumber(dead) > 0 and 'trash' or ''
        if belongs == '' or ARGV[3] == '1' and (where ~= belongs or pushed ~= size) then
            table.insert(wrong, id)
            if mend then redis.call('ZADD', moves, now, id) end
        end
    end
end
return {'done', wrong, charged}
"""
)

# Whether what is named for a move exists. ARGV: blobs, and ids of the trash as ~ID
VAIN = Script(
    LOOK
    + """
for place = 3, #ARGV do
    local id = ARGV[place]
    local dead = id:sub(1, 1) == '~'
    local there = dead and redis.call('HEXISTS', trash, id:sub(2)) or not dead and redis.call('EXISTS', blob_key(id))
    if not is(there) and redis.call('ZSCORE', moves, id) then
        table.insert(wrong, id)
        if mend then redis.call('ZREM', moves, id) end
    end
end
return {'done', wrong, charged}
"""
)

# The user's sums. ARGV: the bytes counted, and `changes` when that began. Wrong are "files", "bytes", "changed".
SUMMED = Script(
    LOOK
    + """
local bytes, count, changes = unpack(redis.call('HMGET', usage, 'bytes', 'files', 'changes'))
if tonumber(count or 0) ~= redis.call('HLEN', files) then
    table.insert(wrong, 'files')
    if mend then redis.call('HSET', usage, 'files', redis.call('HLEN', files)) end
end
if (changes or '0') ~= ARGV[4] then table.insert(wrong, 'changed')
elseif tonumber(bytes or 0) ~= tonumber(ARGV[3]) then
    table.insert(wrong, 'bytes')
    if mend then charge(tonumber(ARGV[3]) - tonumber(bytes or 0)) end
end
return {'done', wrong, charged}
"""
)

# Records what S3 has of a content that no move is due for, and makes one due. ARGV: blob, version, folder, bytes
PLACED = Script(
    LOOK
    + """
local _, _, id, version, where, pushed = unpack(ARGV)
if known_of(id, 'version') ~= version or redis.call('ZSCORE', moves, id) then return {'done', {}, 0} end
if mend then
    redis.call('HSET', blob_key(id), 'where', where, 'pushed', pushed)
    redis.call('ZADD', moves, now, id)
end
return {'done', {id}, charged}
"""
)
