'use strict'
// What the peers in JavaScript share: the users, sessions and items in redis, and the tokens.
//
//   session:ID   string, the user's id; lives TTL seconds after its last use
//   user:ID      hash
//   item:USER:TITLE   hash
//
// The cookie is signed by each framework's own plugin. The csrf token is bound to the session by an HMAC
// (OWASP), so that checking it costs no round trip.

const { createHmac, randomBytes, timingSafeEqual } = require('node:crypto')

const TTL = 30 * 24 * 3600
const SECRET = process.env.SECRET

// Each with the fastest client that it has: Bun its own, Node ioredis. Both send what one turn issues in one write.
const redis = globalThis.Bun
  ? new Bun.RedisClient(`redis+unix://${process.env.REDIS}`)
  : new (require('ioredis'))({ path: process.env.REDIS, enableAutoPipelining: true })

const newId = () => randomBytes(16).toString('base64url')

const csrfToken = session => createHmac('sha256', SECRET).update(session).digest('base64url')

function csrfHolds (session, token) {
  if (typeof token !== 'string') return false
  const given = Buffer.from(token)
  const right = Buffer.from(csrfToken(session))
  return given.length === right.length && timingSafeEqual(given, right)
}

async function signUp (email) {
  const id = newId()
  const session = newId()
  await redis.hset(`user:${id}`, { id, email, admin: '0' })
  await redis.set(`session:${session}`, id, 'EX', TTL)
  return session
}

// The session's user, or null; using a session renews it.
async function userOf (session) {
  const id = await redis.getex(`session:${session}`, 'EX', TTL)
  if (id === null) return null
  const user = await redis.hgetall(`user:${id}`)
  return { id: user.id, email: user.email, admin: user.admin === '1' }
}

function keepItem (user, item) {
  return redis.hset(`item:${user.id}:${item.title}`, {
    title: item.title,
    text: item.text,
    stars: item.stars,
    public: item.public ? '1' : '0',
    tags: item.tags.join(',')
  })
}

const itemSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['title', 'text', 'stars', 'public', 'tags'],
  properties: {
    title: { type: 'string', minLength: 1, maxLength: 100 },
    text: { type: 'string', minLength: 1, maxLength: 5000 },
    stars: { type: 'integer', minimum: 0, maximum: 5 },
    public: { type: 'boolean' },
    tags: { type: 'array', maxItems: 10, items: { type: 'string', minLength: 1, maxLength: 30 } }
  }
}

module.exports = { SECRET, csrfHolds, csrfToken, itemSchema, keepItem, signUp, userOf }
