/* The desk: notes and their tags, what the list shows, and what happens on a click.
 *
 * The law: what a person typed is theirs. It leaves the page when the server has it, or when they say so.
 */

import { Card, LIMITS, count, element, hold, read, saveByKey, tagButton, tagField } from "./card.js";
import { go, onPlace, place } from "./place.js";
import { $, ask, toast } from "./say.js";
import { get, post } from "./server.js";
import { complain, join, user } from "./who.js";

const PAGE = 20; // notes per request

const textarea = $("note-text");
const list = $("notes");
const chips = tagField($("editor").querySelector(".tag-field"), (sentence) => { $("note-error").textContent = sentence; });

let owner = null; // whose words are typed in the editors; outlives a session that ends
let notes = []; // what the list shows, newest first, as the server told it
let cards = new Map(); // note id → Card; besides those of the list, those being edited
let tags = []; // [{tag, count}]
let filter = null; // the tag that the list is filtered by
let listed = null; // the filter that the list on the page was made by; behind `filter` while it loads
let turn = 0; // only the answer to the latest question for notes counts

// ---- coming and going

/** Shows the box of the user who just came in. */
function arrive(focused) {
  if (owner !== null && owner !== user.id) forget();
  owner = user.id;
  $("empty").hidden = true;
  show();
  if (focused && here()) textarea.focus();
}

/** Whether the desk is what one looks at. */
const here = () => place.view === "notes";

/** What the address says, if it means the desk. */
function show() {
  if (!user || !here()) return;
  filter = place.tag;
  refresh();
}

/** What is typed in the editors stays, what came from the server goes. */
function leave() {
  turn += 1;
  notes = [];
  tags = [];
  showNotes(false);
  showTags();
}

/** Drops all that is typed. */
function forget() {
  textarea.value = "";
  chips.input.value = "";
  chips.set([]);
  $("note-error").textContent = "";
  cards.clear();
  list.replaceChildren();
  measure();
}

/** Something typed would be lost. */
const typed = () => textarea.value.trim() || chips.tags.length || [...cards.values()].some((card) => card.changed);

// ---- the list

const EMPTY = { // why the list shows nothing → a title, a sentence
  box: ["An empty box, just tissue paper.", "Write the first note above: the name of that wine, a door code, what she said at dinner."],
  filter: ["Nothing under this tag.", "Its notes were deleted, or have other tags now."],
  failed: ["The lid is stuck.", "Your notes are safe on the server, but they didn’t arrive here."],
};

function refresh() {
  return Promise.all([load(), loadTags()]);
}

/** Asks for the first notes, or for those older than the ones shown. */
async function load(older = false) {
  const mine = ++turn;
  const query = new URLSearchParams({ limit: PAGE });
  if (filter) query.set("tag", filter);
  if (older && notes.length) query.set("before", notes.at(-1).id);
  list.ariaBusy = "true";
  try {
    const page = await get(`/notes?${query}`);
    if (mine !== turn) return;
    const first = older ? page.notes[0] : null;
    notes = older ? [...notes, ...page.notes] : page.notes;
    listed = filter;
    showNotes(page.more);
    if (first) cards.get(first.id).root.focus();
  } catch (error) {
    if (mine !== turn) return;
    if (listed !== filter) notes = []; // what is left would stand under the wrong heading
    if (!notes.length) showNotes(true, true);
    complain((reason) => `Your notes could not be fetched: ${reason}.`, error);
  } finally {
    if (mine === turn) list.ariaBusy = "false";
  }
}

async function loadTags() {
  const mine = user;
  try {
    const answer = await get("/tags");
    if (user !== mine) return;
    tags = answer.tags;
    showTags();
  } catch (error) {
    if (user === mine) complain((reason) => `Your tags could not be fetched: ${reason}.`, error);
  }
}

function showNotes(more = !$("more").hidden, failed = false) {
  const shown = new Map();
  for (const note of notes) {
    const card = cards.get(note.id);
    if (card) card.show(note);
    shown.set(note.id, card ?? new Card(note, { save: change, remove }));
  }
  for (const [id, card] of cards) {
    if (card.editing) shown.set(id, card);
  }
  cards = new Map([...shown].sort(([a], [b]) => b - a));
  const roots = [...cards.values()].map((card) => card.root);
  for (const root of [...list.children]) if (!roots.includes(root)) root.remove();
  roots.forEach((root, place) => { // a card that stays isn't touched: it would lose its focus
    if (list.children[place] !== root) list.insertBefore(root, list.children[place] ?? null);
  });

  $("more").hidden = !more;
  $("more").textContent = failed ? "Try again" : "More notes";
  $("clear").hidden = !filter;
  $("heading").textContent = filter ? `Tagged “${filter}”` : "All notes";
  $("empty").hidden = cards.size > 0;
  [$("empty-title").textContent, $("empty-text").textContent] = EMPTY[failed ? "failed" : filter ? "filter" : "box"];
  roots.forEach(markTags);
}

function showTags() {
  const start = $("tag-search").value.trim().toLowerCase();
  const found = tags.filter(({ tag }) => tag.toLowerCase().startsWith(start));
  const focused = document.activeElement?.closest("#tags .tag")?.dataset.tag;
  $("tags").replaceChildren(...found.map((one) => element("li", {}, tagButton(one.tag, one.count))));
  $("tags-none").textContent = found.length ? ""
    : start ? `No tag begins with “${start}”.`
    : "Tags stand here once a note has one.";
  $("tag-search").hidden = !tags.length;
  markTags($("tags"));
  if (focused) [...$("tags").querySelectorAll(".tag")].find((button) => button.dataset.tag === focused)?.focus();
}

function markTags(root) {
  for (const button of root.querySelectorAll(".tag")) button.ariaPressed = String(button.dataset.tag === filter);
}

/** Filters by a tag, or by none; a second click on the same tag takes it back. */
function pick(tag) {
  go("notes", tag === filter ? null : tag);
}

// ---- changing notes

function measure() {
  const left = LIMITS.text - count(textarea.value);
  $("note-count").textContent = left > 500 ? "" : left >= 0 ? `${left} characters left` : `${-left} characters too many`;
}

async function create(event) {
  event.preventDefault();
  const editor = $("editor");
  const note = read(textarea, chips, (sentence) => { $("note-error").textContent = sentence; });
  if (!note) return;
  hold(editor, true);
  try {
    await post("/notes", note);
  } catch (error) {
    hold(editor, false);
    textarea.focus();
    return complain((reason) => `The note could not be saved: ${reason}; your text is kept.`, error);
  }
  hold(editor, false);
  textarea.value = "";
  chips.set([]);
  measure();
  textarea.focus();
  const hidden = filter && !note.tags.includes(filter);
  toast(hidden ? `In the box. It isn’t tagged “${filter}”, so it doesn’t show here.` : "In the box.");
  await refresh();
}

async function change(note, { text, tags: marks }) {
  const before = { text: note.text, tags: note.tags };
  try {
    await post(`/notes/${note.id}`, { text, tags: marks });
  } catch (error) {
    complain((reason) => `The change could not be saved: ${reason}; your text is kept.`, error);
    return false;
  }
  Object.assign(note, { text, tags: marks, changed: Date.now() / 1000 });
  toast("Changed.", false, async () => await change(note, before) && refresh());
  loadTags();
  return true;
}

async function remove(note) {
  const start = note.text.trim();
  const quote = count(start) > 160 ? `${[...start].slice(0, 160).join("")}…` : start;
  const marks = note.tags.length ? ` Its tags (${note.tags.join(", ")}) go with it.` : "";
  const yes = await ask({
    title: "Throw this note away?",
    quote,
    text: `The whole note is lost for good; there is no bin to fetch it from.${marks}`,
    yes: "Throw it away",
  });
  if (!yes) return;
  try {
    await post(`/notes/${note.id}/delete`);
  } catch (error) {
    if (error.error !== "note") return complain((reason) => `The note could not be deleted: ${reason}.`, error);
  }
  const { root } = cards.get(note.id);
  const next = (root.nextElementSibling ?? root.previousElementSibling) || textarea;
  cards.delete(note.id);
  notes = notes.filter((other) => other.id !== note.id);
  showNotes();
  next.focus();
  toast("Thrown away.");
  loadTags();
  if (!notes.length) load();
}

// ---- what happens on a click

$("editor").addEventListener("submit", create);
saveByKey($("editor"));
textarea.addEventListener("input", () => {
  $("note-error").textContent = "";
  measure();
});

$("more").addEventListener("click", () => load(true));
$("clear").addEventListener("click", () => {
  pick(null);
  $("heading").focus();
});
$("tags").addEventListener("click", ({ target }) => {
  const button = target.closest(".tag");
  if (button) pick(button.dataset.tag);
});
list.addEventListener("click", ({ target }) => {
  const button = target.closest(".tag");
  if (!button) return;
  pick(button.dataset.tag);
  $("heading").focus(); // the card may leave the list, and the focus with it
});
$("tag-search").addEventListener("input", showTags);
$("tag-search").addEventListener("keydown", (event) => {
  const first = $("tags").querySelector(".tag");
  if (event.key !== "Enter" || event.isComposing || !first || !event.target.value.trim()) return;
  pick(first.dataset.tag);
});
setInterval(() => cards.forEach((card) => card.date()), 60_000);

onPlace(show);
join({ arrive, leave, forget, typed });
