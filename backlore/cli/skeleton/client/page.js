/* The page: login at the door, notes in the room. What users write is shown as text, never as markup. */

const $ = (id) => document.getElementById(id);

const WORDS = { // the server's error word → a sentence
  auth: "Email and password don’t match.",
  email: "This address has an account already: log in.",
  verify: "First open the link in the mail that we sent you.",
  second: "This account has a second factor, and this page can’t ask for it yet.",
  whitelist: "Only invited addresses may sign up here.",
  token: "This link has served already, or is too old. Sign up again for a new one.",
  rate: "Too many tries. Wait a little.",
  full: "There is no room for more notes: delete some.",
  unreachable: "The server is unreachable. Try again in a moment.",
  unavailable: "The server is taking a short break. Try again in a moment.",
};
const ENDED = ["nocookie", "session", "tampered"]; // the session has ended: the user must log in again

let csrf = ""; // the session's token, sent with every POST

/** Sends a request and returns the answer; throws {error, why} when it is refused. */
async function ask(path, payload) {
  const sent = payload && {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify(payload),
  };
  let response, answer;
  try {
    response = await fetch(path, sent);
    answer = await response.json();
  } catch {
    throw { error: "unreachable" };
  }
  if (!response.ok) throw answer;
  return answer;
}

/** Runs what the user asked for, and says why if it fails. */
async function attempt(work) {
  say("");
  try {
    await work();
  } catch (refusal) {
    if (!("error" in refusal)) throw refusal;
    if (ENDED.includes(refusal.error)) return leave("Your session has ended. Log in again.");
    say(refusal.why ?? WORDS[refusal.error] ?? "Something went wrong on the server.");
  }
}

function say(sentence) {
  $("said").textContent = sentence;
}

function show(user) {
  $("door").hidden = Boolean(user);
  $("room").hidden = $("who").hidden = !user;
  $("email").textContent = user?.email ?? "";
}

async function enter() {
  const session = await ask("/auth/csrf");
  csrf = session.csrf;
  show(session.user);
  await list();
}

function leave(sentence) {
  csrf = "";
  $("notes").replaceChildren();
  show(null);
  say(sentence);
}

async function list() {
  const { notes } = await ask("/notes");
  $("none").hidden = notes.length > 0;
  $("notes").replaceChildren(...notes.map(line));
}

/** One note of the list. */
function line({ id, text }) {
  const item = document.createElement("li");
  const words = document.createElement("span");
  const button = document.createElement("button");
  words.textContent = text;
  button.textContent = "Delete";
  button.ariaLabel = `Delete “${text}”`;
  button.addEventListener("click", () => attempt(async () => {
    await ask(`/notes/${id}/delete`, {});
    await list();
    $("notes-title").focus(); // the button is gone
  }));
  item.append(words, button);
  return item;
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const { way, ...typed } = Object.fromEntries(new FormData(event.currentTarget, event.submitter));
  attempt(async () => {
    if (way === "signup") {
      await ask("/auth/signup", typed);
      say("Almost there: open the link in the mail that we have sent you."); // stays unless the login below succeeds
    }
    const waiting = $("said").textContent;
    try {
      await ask("/auth/login", typed);
    } catch (refusal) {
      // where addresses are verified, nobody learns here whether this one has an account
      if (waiting && ["auth", "verify"].includes(refusal.error)) return say(waiting);
      throw refusal;
    }
    event.target.reset();
    say("");
    await enter();
  });
});

$("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  attempt(async () => {
    await ask("/notes", Object.fromEntries(new FormData(form)));
    form.reset();
    await list();
  });
});

$("logout").addEventListener("click", () => attempt(async () => {
  await ask("/auth/logout", {});
  leave("You are logged out.");
}));

let token = ""; // from a mail's link

/** Asks for the password if a mail's link led here: it verifies the address. Clears the token from the address bar. */
function verify() {
  token = location.hash.match(/^#verify=(\w+)$/)?.[1] ?? "";
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  show(null);
  $("door").hidden = true;
  $("proof").hidden = false;
  $("proof-password").focus();
}

$("proof").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  attempt(async () => {
    await ask("/auth/verifyEmail", { token, ...Object.fromEntries(new FormData(form)) });
    form.reset();
    form.hidden = true;
    show(null);
    say("Your address is confirmed. Log in.");
  });
});

try {
  await enter();
} catch (refusal) {
  show(null);
  if (!ENDED.includes(refusal.error)) say(WORDS[refusal.error] ?? "Something went wrong on the server.");
}
verify();
