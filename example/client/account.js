/* The view of one's account: password, address, logging out, its end; sessions.js and factors.js fill in the rest. */

import { notice } from "./door.js";
import { showFactors } from "./factors.js";
import { handle, refuse } from "./forms.js";
import { prove } from "./prove.js";
import { $, ask, toast } from "./say.js";
import { post } from "./server.js";
import { showSessions } from "./sessions.js";
import { complain, join, quit, typed, unknow, user } from "./who.js";

const dialog = $("account-dialog");

function showAddress() {
  $("account").textContent = $("account-email").textContent = user.email;
  $("account").ariaLabel = `${user.email}: your account`;
  for (const hidden of document.querySelectorAll("dialog [autocomplete=username]")) hidden.value = user.email;
}

function open() {
  dialog.append($("toast")); // what is outside of an open dialog can't be read or closed
  dialog.showModal();
  dialog.scrollTop = 0;
  showSessions();
  showFactors();
}

// ---- password, address, going

handle("change-password", {
  send: (typed) => post("/auth/changePassword", typed),
  done: () => {
    $("change-password").reset();
    toast("Your password is changed. All other sessions have ended.");
    showSessions();
  },
  refusals: { auth: ["old", "The old password is not right."] },
});
handle("change-email", {
  send: (typed) => post("/auth/changeEmail", typed),
  done: () => {
    $("change-email").reset();
    toast("We have sent a link to the new address.");
  },
});

async function logout() {
  if (typed() && !await ask({
    title: "Log out now?",
    text: "What you typed or are bringing is not in the box yet and would be lost.",
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

async function destroy() {
  const gone = await prove({
    title: "Delete your account?",
    text: `The account of ${user.email} and all its pictures, notes and tags are lost for good, on every device. Nobody can bring them back.`,
    yes: "Delete it all",
    no: "Keep it",
    danger: true,
    send: ({ password }) => post("/auth/destroy", { password }),
  });
  if (!gone) return;
  unknow();
  quit();
  $("email").value = "";
  notice("Your account and all that was in its box are gone.", true);
}

// ---- what happens on a click

$("account").addEventListener("click", open);
$("account-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  document.body.append($("toast"));
  for (const form of dialog.querySelectorAll("form")) {
    form.reset();
    refuse(form, null, "");
  }
});
$("logout").addEventListener("click", logout);
$("destroy").addEventListener("click", destroy);

join({ arrive: showAddress, renew: showAddress });
