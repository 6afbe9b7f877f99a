/* Forms: what one sends and what follows, what is wrong with what was typed, as the page sees it or as the server
 * said, and where that stands. A field's name is the payload's, so that the server's words find their field.
 */

import { count, hold } from "./card.js";
import { $ } from "./say.js";
import { Refused } from "./server.js";
import { complain, user } from "./who.js";

const REFUSALS = { // error → the field it stands next to, the sentence
  auth: ["password", "The password is not right."],
  code: ["code", "This code is not right, or has served already."],
  email: ["email", "There is a box for this email already."],
  factor: [null, "Set up an authenticator or a passkey first."],
  passkey: [null, "This passkey isn’t known here."],
  passkeys: [null, "An account has at most 20 passkeys: remove one first."],
  provider: [null, "This sign-in isn’t there any more."],
  token: [null, "This link is no longer valid: it works once, and for an hour."],
  whitelist: ["email", "This server lets in invited addresses only, and this one isn’t on its list."],
  unavailable: [null, "The server is taking a short break. Try again in a moment."],
  unreachable: [null, "The server is unreachable. Check your connection, then try again."],
  // words of this page: what became of a passkey's ceremony
  cancelled: [null, "That was cancelled, or took too long. Try again."],
  registered: [null, "This device has a passkey for your box already."],
  impossible: [null, "This browser could not use a passkey here."],
};

const password = (value) => (count(value) < 8 ? "A password has at least 8 characters."
  : count(value) > 128 ? "A password has at most 128 characters."
  : "");

const CHECKS = { // field → what can be seen to be wrong with it without asking the server, or ""
  email: (value) => (/^[^\s@]+@[^\s@]+$/.test(value) ? "" : "That doesn’t look like an email address yet."),
  password,
  old: password,
  new: password,
  code: (value) => (count(value) < 6 ? "A code has at least 6 characters." : ""),
  name: (value) => (!value ? "Give it a name, to know it again."
    : count(value) > 60 ? "A name has at most 60 characters."
    : ""),
};

/** Makes a form work, from {send(typed), done(answer, typed), refusals, leads}.
 *
 * `refusals` are in the place of those above; `leads` are functions for errors that lead elsewhere. What a button of
 * the form is named counts as typed.
 */
export function handle(id, form) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    submit(event.currentTarget, event.submitter, form);
  });
}

async function submit(form, submitter, { send, done, refusals, leads = {} }) {
  const typed = Object.fromEntries(new FormData(form, submitter));
  for (const name of ["email", "code", "name"]) if (name in typed) typed[name] = typed[name].trim();
  const problem = check(typed);
  if (problem) return refuse(form, ...problem);
  refuse(form, null, "");
  hold(form, true);
  let answer;
  try {
    answer = await send(typed);
  } catch (error) {
    release(form, submitter);
    if (user && error.ended) return complain(null, error);
    if (leads[error.error]) return leads[error.error](error);
    const [name, sentence] = explain(error, refusals);
    return refuse(form, form.elements[name] ? name : null, sentence);
  }
  release(form, submitter);
  done(answer, typed);
}

/** A disabled button has lost the focus. */
function release(form, submitter) {
  hold(form, false);
  if (!form.contains(document.activeElement)) submitter?.focus();
}

/** What can be seen without asking the server. → [name of the field, sentence], or null. */
function check(typed) {
  for (const [name, value] of Object.entries(typed)) {
    const problem = CHECKS[name]?.(value);
    if (problem) return [name, problem];
  }
  return null;
}

/** Says what is wrong, right under the field that it is about, or above the button. */
export function refuse(form, name, sentence) {
  const error = form.querySelector("[role=alert]");
  const wrong = name && form.elements[name];
  for (const input of form.querySelectorAll("input[name]")) {
    const described = input === wrong ? error : input.closest(".field").querySelector(".hint:not([hidden])");
    input.ariaInvalid = String(input === wrong);
    if (described) input.setAttribute("aria-describedby", described.id);
    else input.removeAttribute("aria-describedby");
  }
  if (wrong) wrong.closest(".field").append(error);
  else form.querySelector("[type=submit]").closest(".buttons, form > button").before(error);
  error.textContent = sentence;
  error.hidden = !sentence;
  if (wrong) wrong.focus();
  if (sentence) (wrong?.closest(".field") ?? error).scrollIntoView({ block: "nearest" });
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
