/* Forms: what is wrong with what was typed, as the page sees it or as the server said, and where that stands.
 * A field's name is the payload's, so that the server's words find their field.
 */

import { count } from "./card.js";
import { Refused } from "./server.js";

export const REFUSALS = { // error → the field it stands next to, the sentence
  auth: ["password", "The password is not right."],
  email: ["email", "There is a box for this email already."],
  whitelist: ["email", "This server lets in invited addresses only, and this one isn’t on its list."],
  token: [null, "This link is no longer valid: it works once, and for an hour."],
  unavailable: [null, "The server is taking a short break. Try again in a moment."],
  unreachable: [null, "The server is unreachable. Check your connection, then try again."],
};

/** Says what is wrong, right under the field that it is about, or above the button. */
export function refuse(form, name, sentence) {
  const error = form.querySelector("[role=alert]");
  const wrong = name && form.elements[name];
  for (const input of form.querySelectorAll("input[name]")) {
    const described = input === wrong ? error : input.closest(".field").querySelector(".hint");
    input.ariaInvalid = String(input === wrong);
    if (described) input.setAttribute("aria-describedby", described.id);
    else input.removeAttribute("aria-describedby");
  }
  if (wrong) wrong.closest(".field").append(error);
  else form.querySelector("[type=submit]").closest(".buttons, form > button").before(error);
  error.textContent = sentence;
  error.hidden = !sentence;
  if (wrong) wrong.focus();
}

/** What can be seen without asking the server. → [name of the field, sentence], or null. */
export function check(typed) {
  for (const [name, value] of Object.entries(typed)) {
    if (name === "email") {
      if (!/^[^\s@]+@[^\s@]+$/.test(value)) return [name, "That doesn’t look like an email address yet."];
    } else if (count(value) < 8) return [name, "A password has at least 8 characters."];
    else if (count(value) > 128) return [name, "A password has at most 128 characters."];
  }
  return null;
}

/** → [name of the field or null, the sentence]. */
export function explain(error, refusals = {}) {
  if (!(error instanceof Refused)) throw error;
  if (error.error === "payload") {
    const why = error.why || "This can’t be right.";
    return [error.where.split(".").at(-1), why[0].toUpperCase() + why.slice(1) + (/[.!?]$/.test(why) ? "" : ".")];
  }
  if (error.error === "rate") return [null, `Too many tries: try again ${error.soon}.`];
  return refusals[error.error] ?? REFUSALS[error.error] ?? [null, "Something went wrong on the server. Try again in a moment."];
}
