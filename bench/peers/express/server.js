'use strict'
// The contest's application on Express 5: cookie-parser signs the cookie, ajv validates, Express tags replies.

const Ajv = require('ajv')
const cookieParser = require('cookie-parser')
const express = require('express')
const store = require('../store')

const validItem = new Ajv().compile(store.itemSchema)

const app = express()
app.disable('x-powered-by')
app.set('etag', 'strong')

app.use(cookieParser(store.SECRET))

async function gatekeeper (req, res, next) {
  const session = req.signedCookies.session
  const user = session ? await store.userOf(session) : null
  if (user === null) return res.status(403).json({ error: 'session' })
  req.session = session
  req.user = user
  next()
}

function csrf (req, res, next) {
  if (store.csrfHolds(req.session, req.get('x-csrf-token'))) return next()
  res.status(403).json({ error: 'csrf' })
}

function item (req, res, next) {
  if (validItem(req.body)) return next()
  res.status(400).json({ error: 'payload', why: validItem.errors[0].message })
}

app.post('/signup', express.json(), async (req, res) => {
  const session = await store.signUp(req.body.email)
  res.cookie('session', session, { signed: true, httpOnly: true, sameSite: 'lax' })
  res.json({ csrf: store.csrfToken(session) })
})

app.get('/me', gatekeeper, (req, res) => {
  res.json(req.user)
})

app.post('/items', gatekeeper, csrf, express.json(), item, async (req, res) => {
  await store.keepItem(req.user, req.body)
  res.json({ ok: true })
})

app.listen(Number(process.env.PORT), '127.0.0.1')
