/* The view of the pictures: which are shown, by tag, and what is done with the selected ones. */

import { element, tagButton, tagProblem } from "./card.js";
import { Grid } from "./grid.js";
import { look, looking } from "./lightbox.js";
import { go, onPlace, place, refresh } from "./place.js";
import { $, ask, toast } from "./say.js";
import { get, post, renewToken } from "./server.js";
import { onKept } from "./uploads.js";
import { showUsage } from "./usage.js";
import { complain, join, user } from "./who.js";

const PAGE = 50; // pictures per request
const ZIPPED = 900; // pictures in one zip: a form has at most 1,000 fields

const EMPTY = { // why nothing shows → a title, a sentence
  box: ["An empty box, just tissue paper.", "Drop pictures anywhere on this page, or choose them: PNG, JPEG, GIF, WebP, AVIF or BMP."],
  filter: ["No picture under this tag.", "They were deleted, or have other tags now. What you add here gets this tag."],
  failed: ["The lid is stuck.", "Your pictures are safe on the server, but they didn’t arrive here."],
};

const grid = new Grid($("grid"), $("picture-bar"), (picture) => look(picture, actions));
const actions = { pictures: () => grid.pictures, changed: loadTags, remove };
let older = 0; // where the next page begins, or 0
let listed; // the tag that the pictures on the page are filtered by
let turn = 0; // only the answer to the latest question counts

const here = () => user && place.view === "pictures";

// ---- the list

function show() {
  if (!here()) return;
  if (listed !== place.tag) {
    grid.select([]);
    scrollTo(0, 0);
  }
  return Promise.all([load(), loadTags()]);
}

/** Asks for the newest, or for those before the ones shown. */
async function load(more = false) {
  const mine = ++turn;
  const tag = place.tag;
  const query = new URLSearchParams({ limit: PAGE, ...(tag && { tag }), ...(more && { before: older }) });
  try {
    const page = await get(`/pictures?${query}`);
    if (mine !== turn) return;
    older = page.before;
    listed = tag;
    const before = grid.pictures.length;
    draw(more ? [...grid.pictures, ...page.pictures] : page.pictures);
    if (more && page.pictures.length) grid.focusAt(before);
  } catch (error) {
    if (mine !== turn) return;
    if (listed !== tag) draw([], true);
    complain((reason) => `Your pictures could not be fetched: ${reason}.`, error);
  }
}

function draw(pictures, failed = false) {
  grid.show(pictures);
  const more = older > 0 || failed;
  $("pictures-more").hidden = !more;
  $("pictures-more").textContent = failed ? "Try again" : "More pictures";
  $("pictures-heading").textContent = place.tag ? `Tagged “${place.tag}”` : "All pictures";
  $("pictures-clear").hidden = !place.tag;
  $("pictures-empty").hidden = pictures.length > 0 || (more && !failed);
  [$("pictures-empty-title").textContent, $("pictures-empty-text").textContent] =
    EMPTY[failed ? "failed" : place.tag ? "filter" : "box"];
}

async function loadTags() {
  const mine = user;
  try {
    const { tags } = await get("/pictures/tags");
    if (user !== mine) return;
    $("picture-tags").replaceChildren(...tags.map(({ tag, count }) => {
      const button = tagButton(tag, count, "picture");
      button.ariaPressed = String(tag === place.tag);
      return element("li", {}, button);
    }));
  } catch (error) {
    if (user === mine) complain((reason) => `Your tags could not be fetched: ${reason}.`, error);
  }
}

/** A new one, which an upload has brought. */
function add(picture) {
  if (here() && listed === place.tag && (!place.tag || picture.tags.includes(place.tag))) {
    draw([picture, ...grid.pictures]);
  }
}

// ---- what is done with the selected

/** Puts pictures into the trash. → whether all went. */
async function remove(pictures) {
  const place = grid.pictures.indexOf(pictures[0]);
  const gone = new Set();
  let failure;
  for (const { id } of pictures) {
    try {
      await post(`/pictures/${id}/delete`);
    } catch (error) {
      if (error.error !== "picture") { // else it went elsewhere
        failure = error;
        break;
      }
    }
    gone.add(id);
  }
  draw(grid.pictures.filter(({ id }) => !gone.has(id)));
  if (!looking()) grid.focusAt(place);
  const number = gone.size === 1 ? "One picture is" : `${gone.size} pictures are`;
  if (gone.size) toast(`${number} in the trash, for 30 days.`, false, () => bringBack([...gone]));
  if (failure) complain((reason) => `Not all pictures could be deleted: ${reason}.`, failure);
  loadTags();
  if (!grid.pictures.length) load();
  return !failure;
}

async function bringBack(ids) {
  try {
    for (const id of ids) await post(`/pictures/${id}/undelete`);
    toast(ids.length === 1 ? "It is back in the box." : "They are back in the box.");
  } catch (error) {
    complain((reason) => `Not all could be put back: ${reason}.`, error);
  }
  refresh();
}

/** The browser sends a form of its own, and saves the zip as it comes. */
async function zip() {
  const names = grid.chosen.map(({ name }) => name);
  if (names.length > ZIPPED) return toast(`A zip has at most ${ZIPPED} pictures: select fewer.`, true);
  try {
    const csrf = await renewToken();
    const fields = { archive: `${place.tag ?? "pictures"}.zip`, csrf };
    $("zip").replaceChildren(
      ...Object.entries(fields).map(([name, value]) => element("input", { type: "hidden", name, value })),
      ...names.map((value) => element("input", { type: "hidden", name: "names", value })),
    );
    $("zip").submit();
  } catch (error) {
    complain((reason) => `The zip could not be made: ${reason}.`, error);
  }
}

/** Adds a tag to the selected, or to all of them takes it away. */
async function mark(event) {
  event.preventDefault();
  const field = $("mark-tag");
  const tag = field.value.trim();
  field.setCustomValidity(tagProblem(tag));
  if (!event.currentTarget.reportValidity()) return;
  const chosen = grid.chosen;
  const away = chosen.every(({ tags }) => tags.includes(tag));
  const before = chosen.map(({ id, tags }) => ({ id, tags }));
  const change = ({ id, tags }) => ({ id, tags: away ? tags.filter((other) => other !== tag) : [...new Set([...tags, tag])] });
  if (!await give(before.map(change))) return;
  field.value = "";
  toast(away ? `“${tag}” is taken away.` : `Tagged “${tag}”.`, false, () => give(before));
}

/** Gives pictures these tags. → whether all have them. */
async function give(pictures) {
  let done = true;
  try {
    for (const { id, tags } of pictures) await post(`/pictures/${id}/tags`, { tags });
  } catch (error) {
    done = false;
    complain((reason) => `Not all could be tagged: ${reason}.`, error);
  }
  await show();
  return done;
}

async function removeChosen() {
  const chosen = grid.chosen;
  const many = chosen.length > 1;
  const yes = chosen.length < 10 || await ask({
    title: `Put ${chosen.length} pictures into the trash?`,
    text: "They can be put back from there for 30 days.",
    yes: "Into the trash",
    no: many ? "Keep them" : "Keep it",
  });
  if (!yes) return;
  grid.select([]);
  await remove(chosen);
  showUsage();
}

// ---- what happens on a click

$("pictures-more").addEventListener("click", () => load(grid.pictures.length > 0));
$("pictures-clear").addEventListener("click", () => {
  go("pictures");
  $("pictures-heading").focus();
});
$("picture-tags").addEventListener("click", ({ target }) => {
  const tag = target.closest(".tag")?.dataset.tag;
  if (tag !== undefined) go("pictures", tag === place.tag ? null : tag);
});
$("picture-bar").querySelector("[data-act=zip]").addEventListener("click", zip);
$("picture-bar").querySelector("[data-act=delete]").addEventListener("click", removeChosen);
$("mark").addEventListener("submit", mark);
$("mark-tag").addEventListener("input", ({ target }) => target.setCustomValidity(""));

onKept(add, () => here() && loadTags());
onPlace(show);
join({
  arrive(focused) {
    show();
    if (focused && here()) $("pictures-heading").focus(); // the form that had the focus is gone
  },
  leave() {
    turn += 1;
    older = 0;
    listed = undefined;
    grid.show([]);
    $("picture-tags").replaceChildren();
  },
});
