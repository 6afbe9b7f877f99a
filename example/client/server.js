/* The way to the server: requests, and what its words mean to a person. Touches no page.
 *
 * Every refusal is a Refused, also when no answer came: then its error is "unreachable".
 * The law: a request ends, within PATIENCE; an upload, after STALLED without a byte going on.
 */

const PATIENCE = 15_000; // milliseconds
const STALLED = 60_000;
const ENDED = ["nocookie", "session", "tampered"];

const REASONS = {
  unreachable: "the server is unreachable",
  unavailable: "the server is taking a short break",
  rate: "that was a little fast for the server",
  size: "it is too large",
  note: "the note was deleted elsewhere",
  picture: "the picture was deleted elsewhere",
  quota: "your box is full: delete pictures for good, also those in the trash",
  disk: "the server’s disk is full",
  cancelled: "you stopped it",
  session: "your session has ended",
};

export class Refused extends Error {
  constructor(status, answer, wait = 0) {
    super(answer.error);
    Object.assign(this, { error: "server", where: "", why: "" }, answer, { status, wait });
  }

  /** The session is over: only logging in again helps. */
  get ended() {
    return this.status === 403 && ENDED.includes(this.error);
  }

  /** When to try again, as Retry-After says: "in 40 seconds", "in 3 minutes". */
  get soon() {
    const [size, unit] = this.wait < 90 ? [1, "second"] : this.wait < 5400 ? [60, "minute"] : [3600, "hour"];
    const number = Math.ceil(this.wait / size);
    return number ? `in ${number} ${unit}${number === 1 ? "" : "s"}` : "in a little while";
  }

  /** Half a sentence, to follow "could not be saved: ". */
  get reason() {
    if (this.error === "rate" && this.wait) return `too many tries, try again ${this.soon}`;
    return this.why || REASONS[this.error] || "something went wrong on the server";
  }
}

/** The refusal that an answer is; without one, or with one that isn't ours (the error page of a proxy), why. */
function refusal(status, answer, wait) {
  return new Refused(status, answer ?? { error: status >= 500 ? "unavailable" : "unreachable" }, Number(wait) || 0);
}

let session = null; // {csrf, user}, as GET /auth/csrf gave it
let waited = 0; // answers that are waited for
let told = () => {};

/** told(whether an answer is waited for) is called when that has changed. */
export const onWaiting = (tell) => { told = tell; };

const wait = (change) => told((waited += change) > 0);

async function send(method, path, payload) {
  let response, answer;
  wait(1);
  try {
    response = await fetch(path, {
      method,
      headers: payload && { "content-type": "application/json", "x-csrf-token": session?.csrf ?? "" },
      body: payload && JSON.stringify(payload),
      signal: AbortSignal.timeout(PATIENCE),
    });
    answer = await response.json();
  } catch {
    throw refusal(response?.status ?? 0, null);
  } finally {
    wait(-1);
  }
  if (!response.ok) throw refusal(response.status, answer, response.headers.get("retry-after"));
  return answer;
}

export const get = (path) => send("GET", path);

/** Who is logged in: {id, email, admin}. */
export async function whoami() {
  session = await send("GET", "/auth/csrf");
  return session.user;
}

/** A token gone stale (logged in again in another tab) is renewed once, for the same user only. */
async function withToken(act) {
  try {
    return await act();
  } catch (refused) {
    if (refused.error !== "csrf") throw refused;
    await renewToken();
    return act();
  }
}

/** Asks anew for the token of the session; → it, for a form of the browser's own. */
export async function renewToken() {
  const before = session?.user.id;
  const user = await whoami();
  if (user.id !== before) throw new Refused(403, { error: "session" });
  return session.csrf;
}

/** POST. */
export const post = (path, payload = {}) => withToken(() => send("POST", path, payload));

/** POST of a form with files: tells how much has gone, from 0 to 1; `signal` stops it. */
export const upload = (path, form, tell, signal) => withToken(() => sendForm(path, form, tell, signal));

function sendForm(path, form, tell, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch can't say how much has gone
    let waiting;
    const goOn = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => request.abort(), STALLED);
    };
    const stop = () => request.abort();
    const fail = () => reject(signal.aborted ? new Refused(0, { error: "cancelled" }) : refusal(0, null));
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      goOn();
      tell(loaded / total);
    });
    request.addEventListener("load", () => {
      if (request.status === 200 && request.response) resolve(request.response);
      else reject(refusal(request.status, request.response, request.getResponseHeader("retry-after")));
    });
    request.addEventListener("error", fail);
    request.addEventListener("abort", fail);
    request.addEventListener("loadend", () => {
      clearTimeout(waiting);
      signal.removeEventListener("abort", stop);
    });
    signal.addEventListener("abort", stop);
    request.open("POST", path);
    request.responseType = "json";
    request.setRequestHeader("x-csrf-token", session?.csrf ?? "");
    goOn();
    request.send(form);
  });
}

/** One of the ways in. → the user. */
export async function enter(path, payload) {
  session = null;
  await send("POST", path, payload);
  return whoami();
}
