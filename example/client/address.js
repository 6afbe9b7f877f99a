/* What stands in the address when a mail or a provider leads here, and the first question: is somebody in?
 *
 * The law: a token or a ticket leaves the address bar before anything else happens.
 */

import { askReset, askSecond, askVerify, notice, sendBack } from "./door.js";
import { explain } from "./forms.js";
import { $, toast } from "./say.js";
import { Refused, post, whoami } from "./server.js";
import { arrive, leave, renew, user } from "./who.js";

const RETRY = 5_000; // milliseconds, while the server is unreachable at the start
const SHAPE = /^#(verify|reset|second|openid)=([^&]+)(?:&factors=([\w,]*))?$/;
const WRONG_TURNS = { // how a sign-in by a provider failed → a sentence
  auth: "That sign-in could not be verified. Try again, or log in another way.",
  denied: "The provider let nobody in: you stopped there, or it refused.",
  email: "The provider could not vouch for an email address of yours that fits an account here. Log in another way.",
  token: "That sign-in took too long, or came from another browser. Try again.",
  unavailable: "The provider can’t be reached right now. Try again in a while.",
  whitelist: "This server lets in invited addresses only, and yours isn’t on its list.",
};
const FOLLOW = { // kind of link → what it does
  verify,
  reset(token) {
    if (user) leave(); // in this page only: the door has the form
    askReset(token);
  },
  second(ticket, factors = "") {
    if (user) leave();
    askSecond({ ticket, factors: factors.split(",") });
  },
  openid(word) {
    const sentence = WRONG_TURNS[word] ?? WRONG_TURNS.auth;
    if (user) toast(sentence, true);
    else sendBack(sentence);
  },
};

let link = takeLink(); // until it is known who is in

/** [kind, token, factors] of the address, which they leave; or null. */
function takeLink() {
  const found = SHAPE.exec(location.hash);
  if (found) history.replaceState(null, "", location.pathname + location.search);
  return found && found.slice(1);
}

function follow() {
  if (!link) return;
  const [kind, ...rest] = link;
  link = null;
  FOLLOW[kind](...rest);
}

/** Who is in has asked for another address; a signup asks for its password. */
async function verify(token) {
  if (!user) return askVerify(token);
  try {
    await post("/auth/verifyEmail", { token });
    await renew();
  } catch (error) {
    if (error.ended) return leave("Your session has ended. Log in again, then open the link once more.");
    if (error.error === "auth") { // in this page only: the door has the form
      leave();
      return askVerify(token);
    }
    return toast(explain(error.error === "payload" ? new Refused(403, { error: "token" }) : error)[1], true);
  }
  toast("The address is verified.");
}

/** Asks who is in, again until there is an answer. */
export async function look() {
  if (user) return follow(); // came in by the form meanwhile
  let found;
  try {
    found = await whoami();
  } catch (error) {
    if (user) return follow();
    if (document.body.className !== "signed-out") leave();
    if (error.status === 403) {
      notice("");
      return follow();
    }
    notice(`Shoebox can’t open: ${error.reason ?? "something is wrong"}. It keeps trying.`);
    return setTimeout(look, RETRY);
  }
  arrive(found);
  follow();
}

for (const id of ["verify-back", "reset-back", "second-back"]) $(id).addEventListener("click", look); // the session may live on
window.addEventListener("hashchange", () => {
  link = takeLink() ?? link;
  if (document.body.className) follow(); // else look() will
});
