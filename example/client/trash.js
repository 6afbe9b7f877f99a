/* The view of the trash: what was deleted comes back from there, or ends for good. */

import { Grid } from "./grid.js";
import { onPlace, place, refresh } from "./place.js";
import { $, ask, toast } from "./say.js";
import { get, post } from "./server.js";
import { showUsage } from "./usage.js";
import { complain, join, user } from "./who.js";

const grid = new Grid($("trash"), $("trash-bar"), null);
let older = 0; // where the next page begins, or 0
let turn = 0;

const many = (number) => (number === 1 ? "One picture is" : `${number} pictures are`);

function show() {
  if (!user || place.view !== "trash") return;
  grid.select([]);
  return load();
}

async function load(more = false) {
  const mine = ++turn;
  try {
    const page = await get(`/pictures/trash?${new URLSearchParams(more ? { before: older } : {})}`);
    if (mine !== turn) return;
    older = page.before;
    draw(more ? [...grid.pictures, ...page.pictures] : page.pictures);
  } catch (error) {
    if (mine === turn) complain((reason) => `The trash could not be fetched: ${reason}.`, error);
  }
}

function draw(pictures) {
  grid.show(pictures);
  $("trash-more").hidden = !older;
  $("trash-empty").hidden = pictures.length > 0 || older > 0;
}

async function putBack() {
  const gone = new Set();
  try {
    for (const { id } of grid.chosen) {
      await post(`/pictures/${id}/undelete`);
      gone.add(id);
    }
  } catch (error) {
    complain((reason) => `Not all could be put back: ${reason}.`, error);
  }
  finish(gone, `${many(gone.size)} back in the box.`, () => putAway([...gone]));
}

async function putAway(ids) {
  try {
    for (const id of ids) await post(`/pictures/${id}/delete`);
    toast(`${many(ids.length)} in the trash again.`);
  } catch (error) {
    complain((reason) => `Not all could be put into the trash again: ${reason}.`, error);
  }
  refresh();
}

async function erase() {
  const ids = grid.chosen.map(({ id }) => id);
  const yes = await ask({
    title: ids.length === 1 ? "Delete this picture for good?" : `Delete ${ids.length} pictures for good?`,
    text: ids.length === 1 ? "Nobody can bring it back. The room that it takes is free then."
      : "Nobody can bring them back. The room that they take is free then.",
    yes: "Delete for good",
    no: ids.length === 1 ? "Keep it" : "Keep them",
  });
  if (!yes) return;
  const gone = new Set();
  try {
    while (gone.size < ids.length) {
      const some = ids.slice(gone.size, gone.size + 500);
      await post("/files/erase", { ids: some });
      some.forEach((id) => gone.add(id));
    }
  } catch (error) {
    complain((reason) => `Not all could be deleted: ${reason}.`, error);
  }
  finish(gone, `${many(gone.size)} gone for good.`);
  showUsage();
}

function finish(gone, sentence, undo) {
  if (!gone.size) return;
  toast(sentence, false, undo);
  draw(grid.pictures.filter(({ id }) => !gone.has(id)));
  if (grid.pictures.length) grid.focusAt(0);
  else {
    $("trash-heading").focus();
    load();
  }
}

$("trash-more").addEventListener("click", () => load(true));
$("trash-bar").querySelector("[data-act=back]").addEventListener("click", putBack);
$("trash-bar").querySelector("[data-act=erase]").addEventListener("click", erase);

onPlace(show);
join({
  arrive: show,
  leave() {
    turn += 1;
    older = 0;
    grid.show([]);
  },
});
