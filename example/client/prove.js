/* The password again, before anything that changes how one gets in. */

import { handle, refuse } from "./forms.js";
import { $ } from "./say.js";

const dialog = $("prove-dialog");
const form = $("prove");
let resolve;
const asked = { // what the form does now
  done(answer) {
    resolve(answer);
    dialog.close();
  },
};

/** Asks for the password, and for a name if one is proposed, until send({password, name}) is answered.
 * Resolves to the answer, or to undefined when the person thinks better of it. */
export function prove({ title, text, yes, no = "Cancel", danger = false, name = "", send, refusals }) {
  Object.assign(asked, { send, refusals });
  $("prove-title").textContent = title;
  $("prove-text").textContent = text;
  $("prove-yes").textContent = yes;
  $("prove-yes").className = danger ? "danger" : "primary";
  $("prove-no").textContent = no;
  const field = $("prove-name");
  field.closest(".field").hidden = field.disabled = !name;
  field.value = name;
  refuse(form, null, "");
  dialog.showModal();
  if (name) field.select();
  else $("prove-password").focus();
  return new Promise((settle) => { resolve = settle; });
}

handle("prove", asked);
$("prove-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("cancel", (event) => {
  if (form.ariaBusy === "true") event.preventDefault(); // what is under way may change the account: its end is to be seen
});
dialog.addEventListener("close", () => {
  form.reset();
  resolve(undefined);
});
