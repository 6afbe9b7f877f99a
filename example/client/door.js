/* The door: signing up, logging in by a password, a passkey or a provider, the second step, a forgotten password. */

import { element } from "./card.js";
import { explain, handle, refuse } from "./forms.js";
import { logInByPasskey, whyNot } from "./passkey.js";
import { $ } from "./say.js";
import { enter, get, post } from "./server.js";
import { arrive, join, known } from "./who.js";

const PANELS = ["entrance", "recover", "verify", "reset", "second-step"];
const TABS = {
  "signup-tab": { enter: "Make my box", password: "new-password" },
  "login-tab": { enter: "Open my box", password: "current-password" },
};
const CODES = { // kind of code → how its field looks
  totp: {
    label: "Code of your authenticator", inputMode: "numeric", autocomplete: "one-time-code",
    hint: "The 6 digits that the app shows now.", other: "Use a recovery code instead",
  },
  recovery: {
    label: "Recovery code", inputMode: "text", autocomplete: "off",
    hint: "One of those that you kept, like abcdef-ghijkl-mnopqr-stuvwx. It works once.", other: "Use the authenticator instead",
  },
};

let tab = "signup-tab";
let token = ""; // what the shown form for an address, for a new password, or for the second step, goes with
let kind = "totp"; // of code that the second step asks for

// ---- what the door shows

/** Shows one of the door's panels. */
function show(id) {
  for (const name of PANELS) $(name).hidden = name !== id;
  for (const form of document.querySelectorAll(".sheet form:has([type=submit])")) refuse(form, null, "");
  $("tabs").hidden = id !== "entrance";
  if (id !== "entrance") $("password").value = "";
  notice("");
}

/** Shows the entrance, by one of its tabs. */
function choose(id) {
  tab = id;
  for (const name of Object.keys(TABS)) {
    $(name).ariaSelected = String(name === id);
    $(name).tabIndex = name === id ? 0 : -1;
  }
  for (const name of ["recover", "verify", "reset", "second"]) $(name).reset();
  token = "";
  show("entrance");
  $("entrance").setAttribute("aria-labelledby", id);
  $("enter").textContent = TABS[id].enter;
  $("password").autocomplete = TABS[id].password;
  $("password-hint").hidden = id !== "signup-tab";
  $("forgot").hidden = $("passkey-reason").hidden = id !== "login-tab";
  $("passkey-login").hidden = id !== "login-tab" || Boolean(whyNot());
}

export function notice(sentence, focused = false) {
  $("auth-notice").textContent = sentence;
  if (focused) $("auth-notice").focus();
}

/** Back to the tab for who has an account, with a word on why. */
export function sendBack(sentence) {
  choose("login-tab");
  notice(sentence, true);
}

/** Asks who else lets people in. */
export async function showProviders() {
  try {
    const { providers } = await get("/auth/providers");
    $("providers").append(...providers.map(({ id, name }) => element("button", {
      type: "submit", name: "provider", value: id, className: "plain", textContent: `Continue with ${name}`,
    })));
    $("providers").hidden = !providers.length;
  } catch (error) {
    explain(error); // there are other ways in
  }
}

// ---- the ways in

/** Signs up, and in. → the user, or null when the address is to be verified first. */
async function open({ email, password }) {
  const made = tab === "signup-tab";
  if (made) await post("/auth/signup", { email, password });
  try {
    return await enter("/auth/login", { email, password });
  } catch (error) {
    if (made) choose("login-tab");
    if (made && error.error === "verify") return null;
    throw error;
  }
}

function welcome(found) {
  arrive(found, true);
}

/** The first step is done; {ticket, factors} is for the second. */
export function askSecond({ ticket, factors }) {
  choose("login-tab");
  show("second-step");
  token = ticket;
  const why = factors.includes("passkey") ? whyNot() : "";
  $("second-passkey").hidden = Boolean(why) || !factors.includes("passkey");
  $("second-reason").textContent = why;
  $("second-other").hidden = !factors.includes("totp");
  askCode(factors.includes("totp") ? "totp" : "recovery");
  if (factors.includes("totp") || why) $("second-code").focus();
  else $("second-passkey").querySelector("button").focus();
}

/** A token out of a mail is for an address: of a signup, whose password nobody else knows. */
export function askVerify(given) {
  choose("login-tab");
  show("verify");
  token = given;
  $("verify-password").focus();
}

/** A token out of a mail is for a new password. */
export function askReset(given) {
  choose("login-tab");
  show("reset");
  token = given;
  $("reset-password").focus();
}

function askCode(asked) {
  kind = asked;
  const { label, hint, other, ...looks } = CODES[kind];
  $("second-label").textContent = label;
  $("second-hint").textContent = hint;
  $("second-other").textContent = other;
  Object.assign($("second-code"), looks, { value: "" });
  refuse($("second"), null, "");
}

const late = { token: () => sendBack("That took too long: log in again.") };

handle("auth", {
  send: open,
  done: (found) => (found ? welcome(found) : notice("We have sent you a link: open it to finish signing up.", true)),
  leads: { second: askSecond },
  refusals: {
    auth: ["password", "This email and password don’t go together. Check both, or sign up if you are new."],
    email: ["email", "There is a box for this email already. Log in instead."],
    verify: ["email", "This email isn’t confirmed yet. Follow the link in the mail we sent you, then log in."],
  },
});
handle("passkey-login", {
  send: () => logInByPasskey(),
  done: welcome,
  refusals: { passkey: [null, "This passkey isn’t known here, or can’t open a box by itself. Log in with your password."] },
});
handle("providers", {
  send: (typed) => post("/auth/openid/begin", typed),
  done: ({ url }) => location.assign(url),
  refusals: { unavailable: [null, "The provider can’t be reached right now. Try again in a while."] },
});
handle("second", { send: ({ code }) => enter("/auth/second", { ticket: token, code }), done: welcome, leads: late });
handle("second-passkey", { send: () => logInByPasskey({ ticket: token }), done: welcome, leads: late });
handle("recover", {
  send: (typed) => post("/auth/recover", typed),
  done: (_, { email }) => {
    $("email").value = email;
    sendBack("If there is an account with this address, a mail is on its way; its link works for ten minutes.");
  },
});
handle("verify", {
  send: ({ password }) => post("/auth/verifyEmail", { token, password }),
  done: () => sendBack("Your address is verified: log in."),
  leads: {
    session: () => sendBack("To change the address of your box, log in first; then open the link once more."),
    token: () => sendBack("This link is no longer valid: it works once, and for an hour."),
  },
  refusals: {
    auth: ["password", "This isn’t the password that was chosen when somebody signed up. If it wasn’t you, close this page."],
  },
});
handle("reset", {
  send: ({ password }) => post("/auth/reset", { token, password }),
  done: () => sendBack("Your new password is set: log in."),
  leads: {
    token: () => {
      show("recover");
      notice("This link is no longer valid: it works once, and for ten minutes. Ask for a new one.", true);
    },
  },
});

// ---- what happens on a click

for (const id of Object.keys(TABS)) {
  $(id).addEventListener("click", () => choose(id));
  $(id).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    const other = Object.keys(TABS).find((name) => name !== tab);
    choose(event.key === "Home" ? "signup-tab" : event.key === "End" ? "login-tab" : other);
    $(tab).focus();
  });
}
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
for (const id of ["recover-back", "verify-back", "reset-back", "second-back"]) {
  $(id).addEventListener("click", () => {
    choose("login-tab");
    $("email").focus();
  });
}
$("second-other").addEventListener("click", () => {
  askCode(kind === "totp" ? "recovery" : "totp");
  $("second-code").focus();
});
$("passkey-reason").textContent = whyNot();

join({
  arrive() {
    choose("login-tab");
    $("password").value = "";
  },
  leave(sentence, gone) {
    if (gone) $("email").value = gone.email;
    choose(known() ? "login-tab" : "signup-tab");
    notice(sentence);
  },
});
