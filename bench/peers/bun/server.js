'use strict'
// The contest's application on Bun: its own server with its own router, redis client, cookies and hash; ajv validates.

const { createHmac, timingSafeEqual } = require('node:crypto')
const Ajv = require('ajv')
const store = require('../store')

const validItem = new Ajv().compile(store.itemSchema)
const JSON_TYPE = 'application/json'

const sign = value => `${value}.${createHmac('sha256', store.SECRET).update(value).digest('base64url')}`

// The session of the signed cookie, or null.
function sessionOf (request) {
  const raw = request.cookies.get('session')
  if (!raw) return null
  const value = raw.slice(0, raw.lastIndexOf('.'))
  const given = Buffer.from(raw)
  const right = Buffer.from(sign(value))
  return given.length === right.length && timingSafeEqual(given, right) ? value : null
}

const refuse = (status, error) => Response.json({ error }, { status })

Bun.serve({
  port: Number(process.env.PORT),
  hostname: '127.0.0.1',
  routes: {
    '/signup': {
      async POST (request) {
        const session = await store.signUp((await request.json()).email)
        request.cookies.set('session', sign(session), { httpOnly: true, sameSite: 'lax', path: '/' })
        return Response.json({ csrf: store.csrfToken(session) })
      }
    },
    '/me': {
      async GET (request) {
        const session = sessionOf(request)
        const user = session === null ? null : await store.userOf(session)
        if (user === null) return refuse(403, 'session')
        const body = JSON.stringify(user)
        const etag = `"${Bun.hash(body).toString(36)}"` // wyhash, the fastest that it has
        if (request.headers.get('if-none-match') === etag) return new Response(null, { status: 304, headers: { etag } })
        return new Response(body, { headers: { 'content-type': JSON_TYPE, etag } })
      }
    },
    '/items': {
      async POST (request) {
        const session = sessionOf(request)
        const user = session === null ? null : await store.userOf(session)
        if (user === null) return refuse(403, 'session')
        if (!store.csrfHolds(session, request.headers.get('x-csrf-token'))) return refuse(403, 'csrf')
        const item = await request.json()
        if (!validItem(item)) return Response.json({ error: 'payload', why: validItem.errors[0].message }, { status: 400 })
        await store.keepItem(user, item)
        return Response.json({ ok: true })
      }
    }
  }
})
