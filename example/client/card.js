/* The pieces of the page that exist many times: tags, the field they are typed into, and notes on their cards.
 * They know the page's templates, not the server: what a button does is handed in.
 */

export const LIMITS = { text: 5000, tags: 10, tag: 30 }; // characters, pieces, characters
const FOLD = { characters: 900, lines: 14 }; // a longer note shows its beginning
const HUES = 8; // as many as shoebox.css has

/** Characters as the server counts them: code points, not UTF-16 halves. */
export const count = (text) => [...text].length;

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const stamp = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/** A tag has one colour, everywhere and for ever. */
function hue(tag) {
  let sum = 0;
  for (const character of tag.toLowerCase()) sum = (sum * 131 + character.codePointAt(0)) % 65521;
  return `hue-${sum % HUES}`;
}

export function tagButton(tag, number, noun = "note") {
  const button = element("button", { type: "button", className: `tag ${hue(tag)}` }, element("span", { textContent: tag }));
  button.dataset.tag = tag;
  if (number === undefined) {
    button.title = `Show the notes tagged ${tag}`;
  } else {
    button.append(" ", element("span", { className: "number", textContent: number }));
    button.ariaLabel = `${tag}, ${number} ${noun}${number === 1 ? "" : "s"}`;
  }
  return button;
}

// ---- dates

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "short" });
const STEPS = [[3600, 60, "minute"], [86400, 3600, "hour"], [7 * 86400, 86400, "day"]]; // below, divide by, unit

/** "just now", "5 minutes ago", "yesterday", "3 March 2026"; from seconds since 1970. */
export function ago(seconds) {
  const age = Math.max(0, Date.now() / 1000 - seconds);
  if (age < 60) return "just now";
  for (const [below, size, unit] of STEPS) {
    if (age < below) return AGO.format(-Math.floor(age / size), unit);
  }
  return DAY.format(seconds * 1000);
}

// ---- the field for tags

/** What the server would refuse a tag for, or "". */
export const tagProblem = (tag) => (/[\s\p{Cc},]/u.test(tag) ? `A tag is one word: “${tag}” has a space in it.`
  : count(tag) > LIMITS.tag ? `A tag has at most ${LIMITS.tag} characters; this one has ${count(tag)}.`
  : "");

/** Makes a .tag-field work. complain(sentence) tells the person; "" takes it back. */
export function tagField(root, complain) {
  const chips = root.querySelector(".chips");
  const input = root.querySelector("input");
  let tags = [];

  function show() {
    chips.replaceChildren(...tags.map((tag) => {
      const remove = element("button", { type: "button", ariaLabel: `Remove the tag ${tag}`, title: "Remove" }, "×");
      remove.addEventListener("click", () => {
        set(tags.filter((other) => other !== tag));
        input.focus();
      });
      return element("li", { className: `chip ${hue(tag)}` }, tag, remove);
    }));
  }

  function set(next) {
    tags = next;
    show();
  }

  /** Turns what is typed into chips; what breaks a limit stays typed. Returns whether all of it went. */
  function take() {
    const left = [];
    let problem = "";
    for (const tag of input.value.split(",").map((part) => part.trim()).filter(Boolean)) {
      if (tags.includes(tag)) continue;
      if (tagProblem(tag)) problem = tagProblem(tag);
      else if (tags.length >= LIMITS.tags) problem = `A note has at most ${LIMITS.tags} tags.`;
      else {
        tags.push(tag);
        continue;
      }
      left.push(tag);
    }
    input.value = left.join(", ");
    complain(problem);
    show();
    return !problem;
  }

  input.addEventListener("input", (event) => {
    if (!event.isComposing && input.value.includes(",")) take(); // also pasted lists, and phones that send no keys
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      take();
    } else if (event.key === "Backspace" && !input.value && tags.length) {
      set(tags.slice(0, -1));
    }
  });
  root.addEventListener("click", (event) => event.target === root && input.focus());

  return { input, set, take, get tags() { return [...tags]; }, get typed() { return input.value.trim(); } };
}

// ---- what the editor of a new note and that of an old one share

/** Reads {text, tags} from a form, or says next to the field what is wrong and returns null. */
export function read(textarea, field, complain) {
  const text = textarea.value.replace(/^\s*\n/, "").trimEnd();
  const size = count(text);
  const problem = !size ? "Write something first: a note has at least one character."
    : size > LIMITS.text ? `A note has at most ${LIMITS.text.toLocaleString("en")} characters; this one has ${size.toLocaleString("en")}.`
    : "";
  if (!field.take()) {
    field.input.focus();
    return null;
  }
  complain(problem);
  textarea.ariaInvalid = problem ? "true" : "false";
  if (problem) textarea.focus();
  return problem ? null : { text, tags: field.tags };
}

/** Ctrl+Enter (Cmd+Enter on a Mac) in any field of the form saves. */
export function saveByKey(form) {
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (form.ariaBusy !== "true") form.requestSubmit();
  });
}

/** While it saves, the form can be read, not changed: what is sent is what stands there. */
export function hold(form, held) {
  form.ariaBusy = held ? "true" : "false";
  for (const control of form.elements) {
    if (control.matches("button")) control.disabled = held;
    else control.readOnly = held;
  }
}

// ---- a note on its card

/** save(note, {text, tags}) and remove(note) are the page's; save resolves to whether it went well. */
export class Card {
  constructor(note, { save, remove }) {
    this.save = save;
    this.root = stamp("card");
    this.root.dataset.id = note.id;
    this.part = (selector) => this.root.querySelector(selector);
    this.part(".note-edit").addEventListener("click", () => this.open());
    this.part(".note-delete").addEventListener("click", () => remove(this.note));
    this.part(".note-whole").addEventListener("click", () => this.unfold());
    this.show(note);
  }

  get editing() {
    return Boolean(this.form);
  }

  /** Something typed here would be lost. */
  get changed() {
    if (!this.form) return false;
    const { text, tags } = this.note;
    return this.textarea.value !== text || this.field.typed !== "" || this.field.tags.join() !== tags.join();
  }

  show(note) {
    this.note = note;
    const start = note.text.trim().slice(0, 40);
    const long = count(note.text) > FOLD.characters || note.text.split("\n").length > FOLD.lines;
    const folded = long && !this.unfolded;
    this.part(".note-text").textContent = note.text;
    this.part(".note-text").classList.toggle("folded", folded);
    this.part(".note-whole").hidden = !folded;
    this.part(".tabs-of-note").replaceChildren(...note.tags.map((tag) => element("li", {}, tagButton(tag))));
    this.part(".tabs-of-note").hidden = !note.tags.length;
    this.part(".note-edit").ariaLabel = `Edit: ${start}`;
    this.part(".note-delete").ariaLabel = `Delete: ${start}`;
    this.date();
  }

  date() {
    const { created, changed } = this.note;
    const time = this.part("time");
    time.dateTime = new Date(created * 1000).toISOString();
    time.title = MOMENT.format(created * 1000);
    time.textContent = ago(created) + (changed - created >= 1 ? `, edited ${ago(changed)}` : "");
  }

  unfold() {
    this.unfolded = true;
    this.show(this.note);
    this.root.focus();
  }

  open() {
    if (this.form) return;
    this.form = stamp("edit");
    this.textarea = this.form.querySelector("textarea");
    const complain = (sentence) => { this.form.querySelector(".error").textContent = sentence; };
    this.field = tagField(this.form.querySelector(".tag-field"), complain);
    this.textarea.value = this.note.text;
    this.field.set(this.note.tags);
    this.root.classList.add("editing");
    this.part(".paper").append(this.form);
    this.form.querySelector(".note-cancel").addEventListener("click", () => this.close());
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      if (this.changed) complain("Nothing is lost yet: Save keeps your changes, Cancel drops them.");
      else this.close();
    });
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const payload = read(this.textarea, this.field, complain);
      if (!payload) return;
      hold(this.form, true);
      const saved = await this.save(this.note, payload);
      hold(this.form, false);
      if (saved) this.close();
      else this.textarea.focus();
    });
    saveByKey(this.form);
    this.textarea.focus();
    this.textarea.setSelectionRange(this.textarea.value.length, this.textarea.value.length);
  }

  close() {
    this.form.remove();
    this.form = null;
    this.root.classList.remove("editing");
    this.show(this.note);
    this.part(".note-edit").focus();
  }
}
