/* Where one is logged in, as the account's view shows it. */

import { sessionRow } from "./rows.js";
import { $, toast } from "./say.js";
import { get, post } from "./server.js";
import { complain, user } from "./who.js";

/** Asks for the sessions, and shows them. */
export async function showSessions() {
  const mine = user;
  try {
    const { sessions } = await get("/auth/sessions");
    if (user !== mine) return;
    $("sessions").replaceChildren(...sessions.map((one) => sessionRow(one, (button) => end({ id: one.id }, button))));
    $("sessions-others").hidden = sessions.every(({ current }) => current);
  } catch (error) {
    if (user === mine) complain((reason) => `Your sessions could not be fetched: ${reason}.`, error);
  }
}

async function end(which, button) {
  button.disabled = true;
  try {
    await post("/auth/sessions/end", which);
    toast(which.others ? "All other sessions have ended." : "The session has ended.");
  } catch (error) {
    return complain((reason) => `That could not be ended: ${reason}.`, error);
  } finally {
    button.disabled = false;
  }
  await showSessions();
  $("sessions-title").focus();
}

$("sessions-others").addEventListener("click", ({ target }) => end({ others: true }, target));
