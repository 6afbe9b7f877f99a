/* Bringing pictures into the box: dropped anywhere on the page, pasted, or chosen; each with its own progress.
 *
 * The law: of each it is seen what became of it; what failed can be tried again until the person drops it.
 */

import { element } from "./card.js";
import { go, place } from "./place.js";
import { $ } from "./say.js";
import { upload } from "./server.js";
import { showUsage, size } from "./usage.js";
import { complain, join, user } from "./who.js";

const AT_ONCE = 3;
const LARGEST = 100 * 2 ** 20 - 4096; // bytes: Backlore's `upload_limit`, with room for the rest of the form
const HOPELESS = ["picture", "size", "payload", "type"]; // errors that another try doesn't change

const list = $("uploads-list");
let uploads = []; // {file, tag, state, row, stop}; states: waiting, going, kept, failed
let owner = null; // whose they are; outlives a session that ends
let kept = () => {};
let ended = () => {};

/** one(picture) is called for each that is in the box, all() when nothing is under way any more. */
export function onKept(one, all) {
  kept = one;
  ended = all;
}

const of = (...states) => uploads.filter(({ state }) => states.includes(state));

function add(files) {
  const tag = place.view === "pictures" ? place.tag : null;
  if (place.view !== "pictures") go("pictures");
  const made = [...files].map((file) => draw({ file, tag, state: "waiting", stop: new AbortController() }));
  if (!of("waiting", "going").length) uploads = of("failed"); // a new heap begins
  uploads.push(...made);
  list.append(...made.map(({ row }) => row));
  tell();
  advance();
}

function draw(one) {
  const bar = element("progress", { max: 1, value: 0, ariaLabel: one.file.name });
  const said = element("span", { className: "said", textContent: size(one.file.size) });
  const again = element("button", { type: "button", className: "quiet", textContent: "Try again", hidden: true, ariaLabel: `Try ${one.file.name} again` });
  const stop = element("button", { type: "button", className: "quiet", textContent: "Stop", ariaLabel: `Stop ${one.file.name}` });
  const row = element("li", {}, element("strong", { textContent: one.file.name }), said, bar, again, stop);
  again.addEventListener("click", () => retry([one]));
  stop.addEventListener("click", () => drop([one]));
  return Object.assign(one, { row, bar, said, again, stopButton: stop });
}

/** Starts as many as may be under way at once. */
function advance() {
  for (const one of of("waiting").slice(0, Math.max(0, AT_ONCE - of("going").length))) send(one);
}

async function send(one) {
  one.state = "going";
  one.said.textContent = "on its way";
  const mine = user;
  try {
    if (one.file.size > LARGEST) throw Object.assign(new Error(), { error: "size", reason: `it has more than ${size(LARGEST)}` });
    const form = new FormData();
    if (one.tag) form.append("tags", one.tag);
    form.append("file", one.file);
    const picture = await upload("/pictures", form, (part) => {
      one.bar.value = part;
      if (part === 1) one.said.textContent = "being looked at";
    }, one.stop.signal);
    one.state = "kept";
    one.row.remove();
    if (user === mine) kept(picture);
  } catch (error) {
    fail(one, error, mine);
  }
  tell();
  advance();
  if (!of("waiting", "going").length) {
    ended();
    if (user) showUsage();
  }
}

function fail(one, error, mine) {
  if (!error.reason) throw error;
  if (one.stop.signal.aborted) return;
  one.state = "failed";
  one.row.className = "failed";
  one.bar.hidden = true;
  const reason = error.reason.replace(/[.]$/, "");
  one.said.textContent = `${reason[0].toUpperCase()}${reason.slice(1)}.`;
  one.again.hidden = HOPELESS.includes(error.error);
  one.stopButton.textContent = "Dismiss";
  one.stopButton.ariaLabel = `Dismiss ${one.file.name}`;
  if (error.ended && user === mine && user) {
    of("waiting").forEach((other) => { other.state = "failed"; other.again.hidden = false; });
    complain(() => "", error);
  }
}

function retry(some) {
  for (const one of some) {
    const row = one.row;
    draw(Object.assign(one, { state: "waiting", stop: new AbortController() }));
    row.replaceWith(one.row);
  }
  tell();
  advance();
}

function drop(some) {
  for (const one of some) {
    one.stop.abort();
    one.row.remove();
  }
  uploads = uploads.filter((one) => !some.includes(one));
  tell();
  advance();
}

/** The line above the list. */
function tell() {
  const [open, failed, done] = [of("waiting", "going").length, of("failed").length, of("kept").length];
  $("uploads").hidden = !open && !failed;
  const refused = failed ? ` · ${failed} not` : "";
  $("uploads-said").textContent = open ? `${done} of ${uploads.length} are in the box${refused}` : failed
    ? `${done ? `${done} are in the box, ` : ""}${failed === 1 ? "one picture is" : `${failed} pictures are`} not:` : "";
  $("uploads-again").hidden = !of("failed").some(({ again }) => !again.hidden);
  $("uploads-clear").hidden = open > 0;
}

// ---- the ways in

const isFiles = (event) => user && event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
let depth = 0; // of elements that the dragged is over

function drag(event, change) {
  if (!isFiles(event)) return;
  event.preventDefault();
  depth = Math.max(0, depth + change);
  $("drop").hidden = !depth;
}

window.addEventListener("dragenter", (event) => drag(event, 1));
window.addEventListener("dragleave", (event) => drag(event, -1));
window.addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
window.addEventListener("drop", (event) => {
  if (!isFiles(event)) return;
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  add(event.dataTransfer.files);
});
window.addEventListener("paste", (event) => {
  if (user && place.view === "pictures" && event.clipboardData?.files.length) add(event.clipboardData.files);
});
window.addEventListener("beforeunload", (event) => of("waiting", "going").length && event.preventDefault());

$("picture-choose").addEventListener("click", () => $("picture-files").click());
$("picture-files").addEventListener("change", ({ target }) => {
  add(target.files);
  target.value = "";
});
$("uploads-again").addEventListener("click", () => retry(of("failed").filter(({ again }) => !again.hidden)));
$("uploads-clear").addEventListener("click", () => {
  drop(of("failed"));
  $("pictures-heading").focus();
});

function arrive() {
  if (owner !== null && owner !== user.id) drop(uploads);
  owner = user.id;
}

join({
  arrive,
  forget: () => drop(uploads),
  typed: () => of("waiting", "going").length > 0,
});
