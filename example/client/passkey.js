/* A passkey's ceremonies: the server's options, the browser's part, the server again. Touches no page.
 *
 * What a browser says of a ceremony that came to nothing is a Refused, like the server's refusals.
 */

import { Refused, enter, post } from "./server.js";

const NAMES = { // of what a browser throws → our word
  NotAllowedError: "cancelled",
  AbortError: "cancelled",
  InvalidStateError: "registered",
};

/** Why there are no passkeys here, in a sentence; "" when there are. */
export function whyNot() {
  const { host, hostname } = location;
  if (/^127\.|^\[::1\]$/.test(hostname)) return `Passkeys don’t work at an IP address: open ${host.replace(hostname, "localhost")} for them.`;
  if (/^[\d.]+$|^\[/.test(hostname)) return "Passkeys don’t work at an IP address.";
  return window.PublicKeyCredential?.parseRequestOptionsFromJSON ? "" : "This browser, or this address, knows no passkeys.";
}

async function ceremony(begin) {
  try {
    return (await begin()).toJSON();
  } catch (error) {
    throw new Refused(0, { error: NAMES[error.name] ?? "impossible" });
  }
}

/** Logs in with a passkey alone, or after a password: with the ticket that it gave. → the user. */
export async function logInByPasskey(ticket = {}) {
  const { options } = await post("/auth/passkey/options", ticket);
  const credential = await ceremony(() => navigator.credentials.get({
    publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
  }));
  return enter("/auth/passkey", { credential, ...ticket });
}

/** Makes a passkey for who is in. → {recoveryCodes}. */
export async function makePasskey({ name, password }) {
  const { options } = await post("/auth/passkeys/begin", { password });
  const credential = await ceremony(() => navigator.credentials.create({
    publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
  }));
  return post("/auth/passkeys/add", { credential, name });
}
