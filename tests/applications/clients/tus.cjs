// Uploads a file by tus-js-client: node tus.cjs ENDPOINT HEADERS FILE CHUNK STOP
// CHUNK: bytes of a request. STOP: bytes after which it is aborted and then resumed; `deferred`: a stream, whose length
// is known at its end; `creation`: the first bytes come with the creation; or 0.
// Prints the address, and the id of the file that was made.
const fs = require("node:fs")
const { PassThrough } = require("node:stream")
const tus = require("tus-js-client")

const [endpoint, headers, path, chunk, stop] = process.argv.slice(2)
let file = ""
let stopped = false

const source = fs.createReadStream(path)
const upload = new tus.Upload(stop === "deferred" ? source.pipe(new PassThrough()) : source, {
  endpoint,
  headers: JSON.parse(headers),
  chunkSize: Number(chunk),
  uploadSize: stop === "deferred" ? null : fs.statSync(path).size,
  uploadLengthDeferred: stop === "deferred",
  uploadDataDuringCreation: stop === "creation",
  retryDelays: [100, 300, 1000, 1000, 2000, 2000, 2000, 2000, 2000],
  metadata: { filename: `js ${stop} é.bin` },
  onAfterResponse: (request, response) => {
    file = response.getHeader("upload-file") || file
  },
  onProgress: (sent) => {
    if (Number(stop) && sent > Number(stop) && !stopped) {
      stopped = true
      upload.abort().then(() => setTimeout(() => upload.start(), 100))
    }
  },
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess: () => console.log(upload.url, file),
})
upload.start()
