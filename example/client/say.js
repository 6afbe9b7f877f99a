/* What the page says to the person, and asks before something is lost. */

const TOAST = 5_000; // milliseconds; an error stays until it is closed or overtaken

export const $ = (id) => document.getElementById(id);

let fading;

export function toast(sentence, isError = false) {
  clearTimeout(fading);
  const box = $("toast");
  box.className = isError ? "open error" : "open";
  box.ariaLive = isError ? "assertive" : "polite";
  box.firstElementChild.textContent = sentence;
  if (!isError) fading = setTimeout(hush, TOAST);
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

$("toast").querySelector("button").addEventListener("click", hush);
