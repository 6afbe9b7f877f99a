/* Where one is: the view and the tag it is filtered by. Both stand in the address, so that Back and bookmarks work. */

import { $ } from "./say.js";
import { join, user } from "./who.js";

const NAMES = { pictures: "Pictures", notes: "Notes", trash: "Trash" }; // the first is where one arrives
const VIEWS = Object.keys(NAMES);
const told = [];

export const place = { view: VIEWS[0], tag: null };

/** show() is called when the place has changed. */
export const onPlace = (show) => told.push(show);

/** Goes to a view, filtered by a tag or by none. */
export function go(view, tag = null) {
  const wanted = { ...(view !== VIEWS[0] && { view }), ...(tag !== null && { tag }) };
  location.hash = new URLSearchParams(wanted);
}

/** What is shown has changed on the server. */
export const refresh = () => told.forEach((show) => show());

function read() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  place.view = VIEWS.includes(wanted.get("view")) ? wanted.get("view") : VIEWS[0];
  place.tag = wanted.get("tag");
}

function arrive() {
  read();
  for (const view of VIEWS) {
    $(`${view}-view`).hidden = view !== place.view;
    $(`${view}-tab`).ariaCurrent = view === place.view ? "page" : "false";
  }
  const shown = [place.tag, place.view !== VIEWS[0] && NAMES[place.view], "Shoebox"];
  document.title = user ? shown.filter(Boolean).join(" · ") : "Shoebox";
}

window.addEventListener("hashchange", () => {
  arrive();
  refresh();
});
join({ arrive, leave: arrive });
