/* Who is in: the door (sign up, log in, a forgotten password, links out of mails), and the view of one's account.
 *
 * The laws: a token leaves the address bar before anything else happens. What a form is refused for stands
 * beside the field that it is about.
 */

import { hold, sessionRow } from "./card.js";
import { REFUSALS, check, explain, refuse } from "./forms.js";
import { $, ask, hush, toast } from "./say.js";
import { Refused, get, login, post, signup, whoami } from "./server.js";

const RETRY = 5_000; // milliseconds, while the server is unreachable at the start
const KNOWN = "shoebox-known"; // localStorage: somebody has been in from this browser, so offer "Log in" first

export let user = null; // who is in: {id, email, admin}
let desk; // what the rest of the page does: {arrive(focused), leave(), forget(), typed()}
let tab = "signup-tab";
let link = takeLink(); // [kind, token] out of a mail, until it is known who is in

// ---- forms

const FORMS = { // id → what it sends, what follows, and where its refusals differ.
  auth: {
    send: enter,
    done: (found) => (found ? arrive(found, true) : notice("We have sent you a link: open it to finish signing up.", true)),
    refusals: {
      auth: ["password", "This email and password don’t go together. Check both, or sign up if you are new."],
      email: ["email", "There is a box for this email already. Log in instead."],
      verify: ["email", "This email isn’t confirmed yet. Follow the link in the mail we sent you, then log in."],
    },
  },
  recover: {
    send: (typed) => post("/auth/recover", typed),
    done: (_, { email }) => {
      $("email").value = email;
      choose("login-tab");
      notice("If there is an account with this address, a mail is on its way; its link works for ten minutes.", true);
    },
  },
  reset: {
    send: ({ password }) => post("/auth/reset", { token: resetting, password }),
    done: () => {
      choose("login-tab");
      notice("Your new password is set: log in.", true);
    },
    refusals: { token: [null, "This link is no longer valid: it works once, and for ten minutes. Ask for a new one."] },
  },
  "change-password": {
    send: (typed) => post("/auth/changePassword", typed),
    done: () => {
      $("change-password").reset();
      toast("Your password is changed. All other sessions have ended.");
      loadSessions();
    },
    refusals: { auth: ["old", "The old password is not right."] },
  },
  "change-email": {
    send: (typed) => post("/auth/changeEmail", typed),
    done: () => {
      $("change-email").reset();
      toast("We have sent a link to the new address.");
    },
  },
  "destroy-account": {
    send: destroy,
    done: (gone) => {
      if (!gone) return;
      $("email").value = "";
      notice("Your account and all its notes are gone.", true);
    },
  },
};

async function submit(event) {
  event.preventDefault();
  const form = event.currentTarget;
  const { send, done, refusals } = FORMS[form.id];
  const typed = Object.fromEntries(new FormData(form));
  if ("email" in typed) typed.email = typed.email.trim();
  const problem = check(typed);
  if (problem) return refuse(form, ...problem);
  refuse(form, null, "");
  hold(form, true);
  let answer;
  try {
    answer = await send(typed);
  } catch (error) {
    release(event, form);
    if (user && error.ended) return complain(null, error);
    if (form.id === "reset" && error.error === "token") {
      show("recover");
      return notice(explain(error, refusals)[1], true);
    }
    const [name, sentence] = explain(error, refusals);
    return refuse(form, form.elements[name] ? name : null, sentence);
  }
  release(event, form);
  done(answer, typed);
}

/** A disabled button has lost the focus. */
function release({ submitter }, form) {
  hold(form, false);
  if (!form.contains(document.activeElement)) submitter?.focus();
}

/** Tells why something failed; a session that ended leads back to the door instead. */
export function complain(sentence, error) {
  if (!(error instanceof Refused)) throw error;
  if (error.ended) leave("Your session has ended. Log in again: what you typed is still here.");
  else toast(sentence(error.reason), true);
}

// ---- the door

const DOOR = {
  "signup-tab": { enter: "Make my box", password: "new-password" },
  "login-tab": { enter: "Open my box", password: "current-password" },
};

let resetting = ""; // the token of the form for a new password

/** Shows one of the door's forms: auth, recover, reset. */
function show(id) {
  for (const name of ["auth", "recover", "reset"]) $(name).hidden = name !== id;
  $("tabs").hidden = id !== "auth";
  refuse($(id), null, "");
  notice("");
}

function choose(id) {
  tab = id;
  for (const name of Object.keys(DOOR)) {
    $(name).ariaSelected = String(name === id);
    $(name).tabIndex = name === id ? 0 : -1;
  }
  $("auth").setAttribute("aria-labelledby", id);
  $("enter").textContent = DOOR[id].enter;
  $("password").autocomplete = DOOR[id].password;
  $("password-hint").hidden = id !== "signup-tab";
  $("forgot").hidden = id !== "login-tab";
  for (const name of ["recover", "reset"]) $(name).reset();
  show("auth");
}

function notice(sentence, focused = false) {
  $("auth-notice").textContent = sentence;
  if (focused) $("auth-notice").focus();
}

/** Signs up, and in. → the user, or null when the address is to be verified first. */
async function enter({ email, password }) {
  const made = tab === "signup-tab";
  if (made) await signup(email, password);
  try {
    return await login(email, password);
  } catch (error) {
    if (made) choose("login-tab");
    if (made && error.error === "verify") return null;
    throw error;
  }
}

/** Lets somebody in. */
function arrive(found, focused = false) {
  user = found;
  localStorage.setItem(KNOWN, "yes");
  $("password").value = "";
  choose("login-tab");
  showAddress();
  hush();
  document.body.className = "signed-in";
  desk.arrive(focused);
  follow();
}

/** Shows the door. */
function leave(sentence) {
  if (user) $("email").value = user.email;
  user = null;
  hush();
  $("confirm").close();
  $("account-dialog").close();
  desk.leave();
  choose(localStorage.getItem(KNOWN) ? "login-tab" : "signup-tab");
  document.body.className = "signed-out";
  notice(sentence);
}

/** Shows the door, and drops what is typed. */
function quit() {
  desk.forget();
  history.replaceState(null, "", location.pathname);
  leave("");
}

async function logout() {
  if (desk.typed() && !await ask({
    title: "Log out now?",
    text: "What you typed is not in the box yet and would be lost.",
    yes: "Lose it and log out",
    no: "Stay",
  })) return;
  try {
    await post("/auth/logout");
  } catch (error) {
    if (!error.ended) return complain((reason) => `You could not be logged out: ${reason}.`, error);
  }
  quit();
  $("email").focus();
}

/** The first question: is somebody in? Asked again until there is an answer. */
async function look() {
  if (user) return follow(); // came in by the form meanwhile
  let found;
  try {
    found = await whoami();
  } catch (error) {
    if (user) return follow();
    if (document.body.className !== "signed-out") leave("");
    if (error.status === 403) {
      notice("");
      return follow();
    }
    notice(`Shoebox can’t open: ${error.reason ?? "something is wrong"}. It keeps trying.`);
    return setTimeout(look, RETRY);
  }
  arrive(found);
}

// ---- links out of mails

/** [kind, token] of "#verify=TOKEN" or "#reset=TOKEN", which leaves the address bar; or null. */
function takeLink() {
  const found = /^#(verify|reset)=(.+)$/.exec(location.hash);
  if (found) history.replaceState(null, "", location.pathname + location.search);
  return found && found.slice(1);
}

function follow() {
  if (!link) return;
  const [kind, token] = link;
  link = null;
  if (kind === "verify") return verify(token);
  if (user) leave(""); // in this page only: the door has the form
  choose("login-tab");
  show("reset");
  resetting = token;
  $("reset-password").focus();
}

async function verify(token) {
  try {
    await post("/auth/verifyEmail", { token });
    if (user) user = await whoami();
  } catch (error) {
    if (user && error.ended) return leave("Your session has ended. Log in again.");
    const [, sentence] = error.error === "payload" ? REFUSALS.token : explain(error);
    return user ? toast(sentence, true) : notice(sentence, true);
  }
  if (user) {
    showAddress();
    return toast("The address is verified.");
  }
  choose("login-tab");
  notice("Your address is verified: log in.", true);
}

// ---- the account

function showAddress() {
  $("account").textContent = $("account-email").textContent = user.email;
  $("account").ariaLabel = `${user.email}: your account`;
  for (const hidden of $("account-dialog").querySelectorAll("[autocomplete=username]")) hidden.value = user.email;
}

function openAccount() {
  const dialog = $("account-dialog");
  dialog.append($("toast")); // what is outside of an open dialog can't be read or closed
  dialog.showModal();
  loadSessions();
}

async function loadSessions() {
  const mine = user;
  try {
    const { sessions } = await get("/auth/sessions");
    if (user !== mine) return;
    $("sessions").replaceChildren(...sessions.map((one) => sessionRow(one, (button) => endSessions({ id: one.id }, button))));
    $("sessions-others").hidden = sessions.every(({ current }) => current);
  } catch (error) {
    if (user === mine) complain((reason) => `Your sessions could not be fetched: ${reason}.`, error);
  }
}

async function endSessions(which, button) {
  button.disabled = true;
  try {
    await post("/auth/sessions/end", which);
    toast(which.others ? "All other sessions have ended." : "The session has ended.");
  } catch (error) {
    return complain((reason) => `That could not be ended: ${reason}.`, error);
  } finally {
    button.disabled = false;
  }
  await loadSessions();
  $("sessions-title").focus();
}

/** → whether the account is gone. */
async function destroy({ password }) {
  const yes = await ask({
    title: "Delete your account?",
    text: `The account of ${user.email} and all its notes and tags are lost for good, on every device. Nobody can bring them back.`,
    yes: "Delete it all",
  });
  if (!yes) return false;
  await post("/auth/destroy", { password });
  localStorage.removeItem(KNOWN);
  quit();
  return true;
}

// ---- what happens on a click

for (const id of Object.keys(DOOR)) {
  $(id).addEventListener("click", () => choose(id));
  $(id).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    const other = Object.keys(DOOR).find((name) => name !== tab);
    choose(event.key === "Home" ? "signup-tab" : event.key === "End" ? "login-tab" : other);
    $(tab).focus();
  });
}
for (const id of Object.keys(FORMS)) $(id).addEventListener("submit", submit);
for (const button of document.querySelectorAll(".with-button button")) {
  button.addEventListener("click", () => {
    const input = $(button.getAttribute("aria-controls"));
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    button.textContent = shown ? "Hide" : "Show";
    button.ariaPressed = String(shown);
  });
}
$("forgot").addEventListener("click", () => {
  show("recover");
  $("recover-email").value = $("email").value;
  $("recover-email").focus();
});
for (const id of ["recover-back", "reset-back"]) {
  $(id).addEventListener("click", () => {
    choose("login-tab");
    $("email").focus();
    if (id === "reset-back") look(); // the session may live on
  });
}
$("logout").addEventListener("click", logout);
$("account").addEventListener("click", openAccount);
$("account-close").addEventListener("click", () => $("account-dialog").close());
$("account-dialog").addEventListener("close", () => {
  document.body.append($("toast"));
  for (const form of $("account-dialog").querySelectorAll("form")) {
    form.reset();
    refuse(form, null, "");
  }
});
$("sessions-others").addEventListener("click", ({ target }) => endSessions({ others: true }, target));
window.addEventListener("hashchange", () => {
  link = takeLink() ?? link;
  if (document.body.className) follow(); // else look() will
});

/** Opens the page: asks who is in, and tells the desk. */
export function start(rest) {
  desk = rest;
  look();
}
