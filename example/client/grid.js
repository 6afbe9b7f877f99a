/* Pictures side by side, as thumbnails that load when they come into sight, and which of them are selected.
 *
 * It knows no server: what a click opens, and what there is to do with the selected, is handed in.
 */

import { element } from "./card.js";

export class Grid {
  /** root: a list; bar: what shows while some are selected; open(picture): after a click, null for none. */
  constructor(root, bar, open) {
    Object.assign(this, { root, bar, open, pictures: [], tiles: new Map(), selected: new Set(), last: null });
    bar.querySelector("[data-act=all]").addEventListener("click", () => this.select(this.pictures));
    bar.querySelector("[data-act=none]").addEventListener("click", () => {
      this.select([]);
      this.root.querySelector("input")?.focus();
    });
    root.addEventListener("keydown", (event) => this.move(event));
  }

  /** The selected, in their order. */
  get chosen() {
    return this.pictures.filter(({ id }) => this.selected.has(id));
  }

  /** Shows these; a tile that stays isn't touched, so that it keeps its focus. */
  show(pictures) {
    this.pictures = pictures;
    const before = this.tiles;
    this.tiles = new Map(pictures.map((picture) => [picture.id, before.get(picture.id) ?? this.tile(picture)]));
    for (const [id, tile] of before) if (!this.tiles.has(id)) tile.remove();
    [...this.tiles.values()].forEach((tile, at) => {
      if (this.root.children[at] !== tile) this.root.insertBefore(tile, this.root.children[at] ?? null);
    });
    this.select(this.chosen);
  }

  tile(picture) {
    const { id, name, width, height } = picture;
    const image = element("img", { src: `/pictures/${id}/thumb`, alt: name, loading: "lazy", decoding: "async", draggable: false });
    image.addEventListener("error", () => image.classList.add("broken"), { once: true });
    const box = element("input", { type: "checkbox", ariaLabel: `Select ${name}` });
    const face = this.open
      ? element("button", { type: "button", className: "face", title: `${name}, ${width} × ${height}` }, image)
      : element("div", { className: "face", title: name }, image);
    const tile = element("li", { className: "tile" }, face, element("label", { className: "tick" }, box));
    tile.dataset.id = id;
    box.addEventListener("click", (event) => this.tick(picture, box.checked, event.shiftKey));
    if (this.open) face.addEventListener("click", () => this.open(this.pictures.find((one) => one.id === id)));
    else face.addEventListener("click", () => box.click());
    return tile;
  }

  /** With Shift, all from the one that was ticked before. */
  tick(picture, on, through) {
    const from = this.pictures.findIndex(({ id }) => id === this.last);
    const to = this.pictures.findIndex(({ id }) => id === picture.id);
    const some = through && from >= 0 ? this.pictures.slice(Math.min(from, to), Math.max(from, to) + 1) : [picture];
    for (const { id } of some) this.selected[on ? "add" : "delete"](id);
    this.last = picture.id;
    this.select(this.chosen);
  }

  select(pictures) {
    this.selected = new Set(pictures.map(({ id }) => id));
    for (const [id, tile] of this.tiles) {
      tile.querySelector("input").checked = this.selected.has(id);
      tile.classList.toggle("selected", this.selected.has(id));
    }
    const number = this.selected.size;
    this.root.classList.toggle("selecting", number > 0);
    this.bar.hidden = !number;
    this.bar.querySelector("[role=status]").textContent = number ? `${number} selected` : "";
  }

  /** Arrow keys go from picture to picture; from row to row by where they stand. */
  move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    const tile = event.target.closest(".tile");
    if (!step || !tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...this.root.children];
    let at = all.indexOf(tile) + step;
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      while (all[at] && Math.abs(all[at].offsetLeft - tile.offsetLeft) > 4) at += step;
    }
    const kind = event.target.matches("input") || !this.open ? "input" : ".face";
    if (!all[at]) return;
    event.preventDefault();
    all[at].querySelector(kind).focus();
  }

  /** After some went: the focus goes to what is in the place of the first. */
  focusAt(place) {
    const tile = this.root.children[Math.min(place, this.root.children.length - 1)];
    tile?.querySelector(this.open ? ".face" : "input").focus();
  }
}
