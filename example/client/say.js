/* What the page says to the person, and asks before something is lost. */

const TOAST = 5_000; // milliseconds; an error stays until it is closed or overtaken
const REGRET = 12_000; // the same where something can be undone

export const $ = (id) => document.getElementById(id);

let fading;
let undoing = null;

/** `undo` is what a button beside the sentence does. */
export function toast(sentence, isError = false, undo = null) {
  clearTimeout(fading);
  const box = $("toast");
  box.className = isError ? "open error" : "open";
  box.ariaLive = isError ? "assertive" : "polite";
  box.firstElementChild.textContent = sentence;
  undoing = undo;
  $("toast-undo").hidden = !undo;
  if (!isError) fading = setTimeout(fade, undo ? REGRET : TOAST);
}

/** Not under somebody's hand. */
function fade() {
  if ($("toast").matches(":hover, :focus-within")) fading = setTimeout(fade, TOAST);
  else hush();
}

export function hush() {
  $("toast").className = "";
}

/** Asks before something is lost. Resolves to whether the person said yes. */
export function ask({ title, quote = "", text, yes, no = "Keep it" }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-quote").textContent = quote;
  $("confirm-quote").hidden = !quote;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm-no").textContent = no;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

$("toast-close").addEventListener("click", hush);
$("toast-undo").addEventListener("click", () => {
  hush();
  undoing();
});
