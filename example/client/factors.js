/* How one gets in besides the password, as the account's view shows it: the second step, passkeys, linked sign-ins.
 *
 * The law: recovery codes stay on the page until the person says that they are kept.
 */

import { element } from "./card.js";
import { handle, refuse } from "./forms.js";
import { makePasskey, whyNot } from "./passkey.js";
import { prove } from "./prove.js";
import { linkRow, passkeyRow, readable, row } from "./rows.js";
import { $, toast } from "./say.js";
import { get, post } from "./server.js";
import { showSessions } from "./sessions.js";
import { complain, user } from "./who.js";

const authenticator = $("authenticator");
const codes = $("codes");

/** Asks what there is, and shows it. */
export async function showFactors() {
  const mine = user;
  try {
    const [factors, { passkeys }, { links }, { providers }] = await Promise.all(
      ["/auth/factors", "/auth/passkeys", "/auth/links", "/auth/providers"].map(get),
    );
    if (user !== mine) return;
    for (const hint of document.querySelectorAll(".no-password")) {
      hint.hidden = factors.password;
      refuse(hint.closest("form"), null, "");
    }
    showSecondStep(factors, passkeys.length);
    showPasskeys(passkeys);
    showLinks(links, new Map(providers.map(({ id, name }) => [id, name])));
  } catch (error) {
    if (user === mine) complain((reason) => `Your second step and passkeys could not be fetched: ${reason}.`, error);
  }
}

/** After a change: shows the new recovery codes if there are any, then what there is now, where it was changed. */
async function changed(title, sentence, recoveryCodes = []) {
  if (recoveryCodes.length) await showCodes(recoveryCodes);
  await Promise.all([showFactors(), showSessions()]);
  if (!user) return; // the session has ended meanwhile
  $(title).focus();
  toast(sentence);
}

// ---- the second step

function showSecondStep({ totp, recoveryCodes }, passkeys) {
  const rows = [row({
    name: "Authenticator",
    hint: totp ? "On: logging in takes your password and a code from the app." : "Off. Logging in can take a code from an app on your phone, besides your password.",
    action: totp ? "Turn off" : "Set up",
    label: totp ? "Turn the authenticator off" : "Set up an authenticator",
    act: totp ? turnOff : setUp,
  })];
  if (totp || passkeys) rows.push(row({
    name: "Recovery codes",
    hint: `${recoveryCodes} left. Each lets you in once, when the app or the passkey is out of reach.`,
    action: "Renew",
    label: "Renew the recovery codes",
    act: makeCodes,
  }));
  $("second-steps").replaceChildren(...rows);
}

async function setUp() {
  const begun = await prove({
    title: "Set up an authenticator",
    text: "From then on, logging in takes your password and a code from an app on your phone. Your other sessions will end.",
    yes: "Go on",
    send: ({ password }) => post("/auth/totp/begin", { password }),
  });
  if (!begun) return;
  $("totp-qr").src = `data:image/svg+xml,${encodeURIComponent(begun.qr)}`;
  $("totp-secret").textContent = begun.secret.match(/.{1,4}/g).join(" ");
  $("totp-uri").href = begun.uri;
  refuse($("totp-confirm"), null, "");
  authenticator.showModal();
  $("totp-code").focus();
}

async function turnOff() {
  const done = await prove({
    title: "Turn the authenticator off?",
    text: "Its codes open nothing any more. Without a passkey, your password alone opens the box then, and the recovery codes end.",
    yes: "Turn it off",
    no: "Keep it",
    danger: true,
    send: ({ password }) => post("/auth/totp/remove", { password }),
  });
  if (done) changed("second-steps-title", "The authenticator is off.");
}

async function makeCodes() {
  const made = await prove({
    title: "Renew the recovery codes?",
    text: "You get ten new ones. Those that are left open nothing any more.",
    yes: "Renew them",
    send: ({ password }) => post("/auth/recoveryCodes", { password }),
  });
  if (made) changed("second-steps-title", "The new recovery codes count from now on.", made.recoveryCodes);
}

handle("totp-confirm", {
  send: (typed) => post("/auth/totp/confirm", typed),
  done: ({ recoveryCodes }) => {
    authenticator.close();
    changed("second-steps-title", "The authenticator is on. All other sessions have ended.", recoveryCodes);
  },
  refusals: { code: ["code", "This code is not right. Take the one that the app shows now."] },
  leads: {
    token: () => {
      authenticator.close();
      toast("That took too long: set up the authenticator again.", true);
    },
  },
});

// ---- recovery codes

/** Shows them, this once. Resolves when the person has kept them. */
function showCodes(recoveryCodes) {
  const text = `Recovery codes of ${user.email} for Shoebox (${location.origin})\nEach lets in once.\n\n${recoveryCodes.join("\n")}\n`;
  const file = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  $("codes-list").replaceChildren(...recoveryCodes.map((code) => element("li", {}, element("code", { textContent: code }))));
  $("codes-download").href = file;
  $("codes-copy").hidden = !navigator.clipboard; // at an address without https
  $("codes-copy").onclick = () => copy(recoveryCodes.join("\n"));
  $("codes-said").textContent = "";
  codes.showModal();
  return new Promise((resolve) => {
    codes.addEventListener("close", () => {
      URL.revokeObjectURL(file);
      $("codes-list").replaceChildren();
      resolve();
    }, { once: true });
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    $("codes-said").textContent = "Copied.";
  } catch {
    $("codes-said").textContent = "The browser doesn’t let this page copy: download them instead.";
  }
}

// ---- passkeys

function showPasskeys(passkeys) {
  $("passkeys").replaceChildren(...passkeys.map((one) => passkeyRow(one, () => removePasskey(one))));
  $("passkeys-none").hidden = passkeys.length > 0;
  $("passkey-add").disabled = Boolean(whyNot());
  $("passkeys-reason").textContent = whyNot();
}

async function addPasskey() {
  const made = await prove({
    title: "Add a passkey",
    text: "It opens the box by itself. Your password alone no longer does: it asks for the passkey, or a code, as well.",
    yes: "Add it",
    name: readable(navigator.userAgent),
    send: makePasskey,
    refusals: { passkey: [null, "The passkey could not be verified, so it was not added. Try again."] },
  });
  if (made) changed("passkeys-title", "The passkey is added.", made.recoveryCodes);
}

async function removePasskey({ id, name }) {
  const done = await prove({
    title: "Remove the passkey?",
    text: `“${name}” no longer opens the box. Remove it on the device as well.`,
    yes: "Remove it",
    no: "Keep it",
    danger: true,
    send: ({ password }) => post("/auth/passkeys/remove", { id, password }),
    refusals: { passkey: [null, "This passkey was removed already."] },
  });
  if (done) changed("passkeys-title", "The passkey is removed.");
}

// ---- linked sign-ins

function showLinks(links, names) {
  $("links").replaceChildren(...links.map((one) => linkRow(one, names, () => removeLink(one, names))));
  $("links-section").hidden = !links.length;
}

async function removeLink({ provider }, names) {
  const name = names.get(provider) ?? provider;
  const done = await prove({
    title: `Remove the sign-in by ${name}?`,
    text: "You log in with your email and password then, or with a passkey.",
    yes: "Remove it",
    no: "Keep it",
    danger: true,
    send: ({ password }) => post("/auth/links/remove", { provider, password }),
  });
  if (done) changed("links-title", `${name} opens this box no more.`);
}

// ---- what happens on a click

$("passkey-add").addEventListener("click", addPasskey);
$("totp-cancel").addEventListener("click", () => authenticator.close());
authenticator.addEventListener("close", () => {
  $("totp-confirm").reset();
  $("totp-qr").removeAttribute("src");
  $("totp-secret").textContent = "";
  $("totp-uri").removeAttribute("href");
});
codes.addEventListener("cancel", (event) => event.preventDefault()); // where closedby is unknown
