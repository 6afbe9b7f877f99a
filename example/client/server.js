/* The way to the server: requests, and what its words mean to a person. Touches no page.
 *
 * Every refusal is a Refused, also when no answer came: then its error is "unreachable".
 * The law: a request ends, within PATIENCE.
 */

const PATIENCE = 15_000; // milliseconds
const ENDED = ["nocookie", "session", "tampered"];

const REASONS = {
  unreachable: "the server is unreachable",
  unavailable: "the server is taking a short break",
  rate: "that was a little fast for the server",
  size: "it is too large",
  note: "the note was deleted elsewhere",
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

let session = null; // {csrf, user}, as GET /auth/csrf gave it

async function send(method, path, payload) {
  let response, answer;
  try {
    response = await fetch(path, {
      method,
      headers: payload && { "content-type": "application/json", "x-csrf-token": session?.csrf ?? "" },
      body: payload && JSON.stringify(payload),
      signal: AbortSignal.timeout(PATIENCE),
    });
    answer = await response.json();
  } catch {
    // No answer, one cut short, or one that isn't ours: the error page of a proxy.
    throw new Refused(response?.status ?? 0, { error: response?.status >= 500 ? "unavailable" : "unreachable" });
  }
  if (!response.ok) throw new Refused(response.status, answer, Number(response.headers.get("retry-after")) || 0);
  return answer;
}

export const get = (path) => send("GET", path);

/** Who is logged in: {id, email, admin}. */
export async function whoami() {
  session = await send("GET", "/auth/csrf");
  return session.user;
}

/** POST. A token gone stale (logged in again in another tab) is renewed once, for the same user only. */
export async function post(path, payload = {}) {
  try {
    return await send("POST", path, payload);
  } catch (refused) {
    if (refused.error !== "csrf") throw refused;
    const before = session?.user.id;
    const user = await whoami();
    if (user.id !== before) throw new Refused(403, { error: "session" });
    return send("POST", path, payload);
  }
}

/** One of the ways in. → the user. */
export async function enter(path, payload) {
  session = null;
  await send("POST", path, payload);
  return whoami();
}
