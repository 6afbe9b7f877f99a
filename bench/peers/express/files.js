'use strict'
// The contest's application for files on Express 5: cookie-parser, the session in redis, `send` for the bytes.
// A user's files lie in a folder of his own, FILES/USER; who may read them is told by the path alone.

const cookieParser = require('cookie-parser')
const express = require('express')
const send = require('send')
const store = require('../store')

const app = express()
app.disable('x-powered-by')
app.use(cookieParser(store.SECRET))

async function gatekeeper (req, res, next) {
  const session = req.signedCookies.session
  const user = session ? await store.userOf(session) : null
  if (user === null) return res.status(403).json({ error: 'session' })
  req.user = user
  next()
}

app.post('/signup', express.json(), async (req, res) => {
  const session = await store.signUp(req.body.email)
  res.cookie('session', session, { signed: true, httpOnly: true, sameSite: 'lax' })
  res.json({ csrf: store.csrfToken(session) })
})

app.get('/me', gatekeeper, (req, res) => {
  res.json(req.user)
})

app.get('/files/:name', gatekeeper, (req, res) => {
  send(req, encodeURIComponent(req.params.name), { root: `${process.env.FILES}/${req.user.id}`, lastModified: false })
    .on('headers', res => {
      res.setHeader('cache-control', 'private, no-cache')
      res.setHeader('content-disposition', `attachment; filename="${req.params.name}"`)
      res.setHeader('x-content-type-options', 'nosniff')
    })
    .on('error', error => res.status(error.status || 500).json({ error: 'file' }))
    .pipe(res)
})

app.listen(Number(process.env.PORT), '127.0.0.1')
