/* One picture, large: the arrow keys lead to its neighbours, Esc back. Its tags are given here. */

import { hold, tagField } from "./card.js";
import { $, hush, toast } from "./say.js";
import { post } from "./server.js";
import { size } from "./usage.js";
import { complain, join } from "./who.js";

const dialog = $("lightbox");
const image = $("lightbox-image");
const form = $("lightbox-tags");
const field = tagField(form.querySelector(".tag-field"), (sentence) => { $("lightbox-error").textContent = sentence; });

let shown = null; // the picture
let actions = null; // {pictures(), changed(), remove([picture])}: what the view does

/** Whether a picture is shown large. */
export const looking = () => dialog.open;

/** Where a picture is among them, which may have been fetched anew. */
const placeOf = (picture, all) => all.findIndex(({ id }) => id === picture.id);

/** Shows one of a view's pictures. */
export function look(picture, of) {
  actions = of;
  hush();
  dialog.append($("toast")); // what is outside of an open dialog can't be read or closed
  show(picture);
  dialog.showModal();
  dialog.focus();
}

function show(picture) {
  shown = picture;
  const all = actions.pictures();
  const at = placeOf(picture, all);
  image.classList.remove("broken");
  image.style.background = `center / contain no-repeat url("/pictures/${picture.id}/thumb")`; // until it is there
  image.src = `/pictures/${picture.id}`;
  image.alt = picture.name;
  image.width = picture.width; // until it is there, the room is
  image.height = picture.height;
  $("lightbox-name").textContent = picture.name;
  $("lightbox-facts").textContent = `${picture.width} × ${picture.height} · ${size(picture.size)} · ${at + 1} of ${all.length}`;
  $("lightbox-download").href = `/files/content/${picture.name.split("/").map(encodeURIComponent).join("/")}?download=true`;
  $("lightbox-back").disabled = at <= 0;
  $("lightbox-next").disabled = at >= all.length - 1;
  field.set([...picture.tags]);
  field.input.value = "";
  $("lightbox-error").textContent = "";
}

function step(by) {
  const all = actions.pictures();
  const next = all[placeOf(shown, all) + by];
  if (!next) return;
  show(next);
  if (document.activeElement?.disabled) dialog.focus();
}

async function saveTags(event) {
  event.preventDefault();
  if (!field.take()) return field.input.focus();
  const picture = shown;
  const before = picture.tags;
  if (await give(picture, field.tags)) toast("Its tags are kept.", false, () => give(picture, before));
  field.input.focus();
}

/** → whether the picture has these tags now. */
async function give(picture, tags) {
  hold(form, true);
  try {
    await post(`/pictures/${picture.id}/tags`, { tags });
    picture.tags = tags;
    if (shown === picture) field.set([...tags]);
    actions.changed();
    return true;
  } catch (error) {
    complain((reason) => `The tags could not be kept: ${reason}.`, error);
    return false;
  } finally {
    hold(form, false);
  }
}

async function remove() {
  const all = actions.pictures();
  const at = placeOf(shown, all);
  const next = all[at + 1] ?? all[at - 1];
  if (!await actions.remove([shown])) return;
  if (next) show(next);
  else dialog.close();
}

image.addEventListener("error", () => image.classList.add("broken"));
image.addEventListener("load", () => { image.style.background = ""; });
form.addEventListener("submit", saveTags);
$("lightbox-back").addEventListener("click", () => step(-1));
$("lightbox-next").addEventListener("click", () => step(1));
$("lightbox-delete").addEventListener("click", remove);
$("lightbox-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  step(by);
});
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close()); // beside it
dialog.addEventListener("close", () => {
  document.body.append($("toast"));
  image.removeAttribute("src");
  const tile = document.querySelector(`#grid [data-id="${shown?.id}"] .face`);
  (tile ?? $("pictures-heading")).focus();
});

join({ leave: () => { shown = null; } });
