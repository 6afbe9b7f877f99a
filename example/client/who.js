/* Who is in, and the coming and going: the parts of the page join, and are told.
 *
 * A part has what it needs of {arrive(focused), leave(sentence, gone), forget(), renew(), typed()}: somebody came in,
 * went (`gone`, the user who was in, if any), drops what is typed, has another address, has typed something.
 */

import { hush, toast } from "./say.js";
import { Refused, whoami } from "./server.js";

const KNOWN = "shoebox-known"; // localStorage: somebody has been in from this browser, so offer "Log in" first

export let user = null; // {id, email, admin}
const parts = [];

export const join = (part) => parts.push(part);

const tell = (what, ...how) => parts.forEach((part) => part[what]?.(...how));

/** Something typed would be lost. */
export const typed = () => parts.some((part) => part.typed?.());

/** Whether somebody has been in from this browser. */
export const known = () => Boolean(localStorage.getItem(KNOWN));

/** The account is gone: the next one here may be new. */
export const unknow = () => localStorage.removeItem(KNOWN);

/** Lets somebody in. */
export function arrive(found, focused = false) {
  user = found;
  localStorage.setItem(KNOWN, "yes");
  hush();
  document.body.className = "signed-in";
  tell("arrive", focused);
}

/** Shows the door, and why. */
export function leave(sentence = "") {
  const gone = user;
  user = null;
  hush();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.body.className = "signed-out";
  tell("leave", sentence, gone);
}

/** Shows the door, and drops what is typed. */
export function quit() {
  tell("forget");
  history.replaceState(null, "", location.pathname);
  leave();
}

/** The user has changed. */
export async function renew() {
  user = await whoami();
  tell("renew");
}

/** Tells why something failed; a session that ended leads back to the door instead. */
export function complain(sentence, error) {
  if (!(error instanceof Refused)) throw error;
  if (user && error.ended) leave("Your session has ended. Log in again: what you typed is still here.");
  else toast(sentence(error.reason), true);
}
