// A user's life with Shoebox by the generated client; then an upload to the application odd. Ends silently, or throws.
import assert from "node:assert/strict";
import { Client as Odd } from "./odd.js";
import { Client, Refused } from "./shoebox.js";

const [, , shoebox = "", odd = ""] = process.argv;
const person = { email: "ts@example.com", password: "correct horse battery" };
const sent: string[] = []; // method, path, and whether with a token
let spoil = false;
const client = new Client(`${shoebox}/`, (url, init) => {
  const headers = new Headers(init?.headers);
  sent.push(`${init?.method} ${new URL(String(url)).pathname}`);
  if (spoil && headers.has("x-csrf-token")) headers.set("x-csrf-token", "stale");
  spoil = false;
  return fetch(url, { ...init, headers });
});

async function refused(given: Promise<unknown>): Promise<Refused> {
  const error = await given.then(() => null, (error: unknown) => error);
  assert(error instanceof Refused, String(error));
  return error;
}

assert.equal((await refused(client.listNotes())).error, "nocookie");
await client.signup(person);
await client.login(person);
const { id } = await client.createNote({ text: "a & b", tags: ["t", "ü"] });
assert.equal((await client.readNote(id)).text, "a & b");
const { notes, more } = await client.listNotes({ tag: "ü", limit: 5 });
assert.deepEqual([(notes[0] as { id: number }).id, notes.length, more], [id, 1, false]);
const wrong = await refused(client.createNote({ text: "x", tags: ["ok", "a b"] }));
assert.deepEqual([wrong.status, wrong.error, wrong.where], [400, "payload", "tags[1]"]);
assert(wrong.why.length > 5 && wrong.message.includes("tags[1]"));
spoil = true;
sent.length = 0;
await client.editNote(id, { text: "changed" });
assert.deepEqual(sent, [`POST /notes/${id}`, "GET /auth/csrf", `POST /notes/${id}`]);
assert.equal((await client.readNote(id)).text, "changed");
await client.deleteNote(id);
assert.deepEqual([(await refused(client.readNote(id))).status, (await refused(client.readNote(id))).error], [404, "note"]);
await client.logout();
assert.equal((await refused(client.listTags())).error, "nocookie");
const nobody = await refused(new Client("http://127.0.0.1:1").getHealth());
assert.deepEqual([nobody.status, nobody.error], [0, "unreachable"]);

const other = new Odd(odd);
await other.signup(person);
await other.login(person);
const file = new Blob(["h\u0000llo"], { type: "text/plain" });
const seen = await other.upload({ title: "ä\"b", tags: ["1", "2"], file });
assert.deepEqual(seen, { title: "ä\"b", tags: ["1", "2"], name: "blob", type: "text/plain", size: 5 });
const asked = { class: "a&b", yes: true, many: ["x", "y z"] };
assert.deepEqual(await other.search(asked), asked);
const path = "a b/../c%2F?#ü";
assert.deepEqual(await other.delete(7, path), { id: 7, path });
await assert.rejects(async () => other.getClassName(".."), RangeError);
const tree = { children: [{ children: [] }] };
const [uuid, at] = ["123e4567-e89b-12d3-a456-426614174000", "2026-01-01T00:00:00Z"];
const all = await other.everything({ pet: { type: "cat", lives: 9 }, colour: "red", id: uuid, at, price: "1.10", tree });
assert.deepEqual([all.class, all.nested[0]?.and.so, all.rest], ["red", true, uuid]);
