/* The rows of the account's lists: something of the user's, what there is to say of it, what can be done with it. */

import { ago, element } from "./card.js";

/** One row; act(button) is the page's. */
export function row({ name, title = "", hint, action, label, act }) {
  const made = element("li", {}, element("div", {},
    element("strong", { textContent: name, title }),
    element("span", { className: "hint", textContent: hint })));
  if (action) {
    const button = element("button", { type: "button", className: "plain", textContent: action, ariaLabel: label });
    button.addEventListener("click", () => act(button));
    made.append(button);
  }
  return made;
}

const BROWSERS = [ // a name's first match counts: most browsers claim to be others, too
  [/Edg(e|A|iOS)?\//, "Edge"], [/OPR\/|Opera/, "Opera"], [/SamsungBrowser\//, "Samsung Internet"], [/Firefox\/|FxiOS\//, "Firefox"],
  [/Chrome\/|CriOS\/|Chromium\//, "Chrome"], [/Version\/.* Safari\//, "Safari"], [/^curl\//, "curl"],
];
const SYSTEMS = [
  [/iPhone|iPod/, "iPhone"], [/iPad/, "iPad"], [/Android/, "Android"], [/Windows/, "Windows"], [/Mac OS X|Macintosh/, "macOS"],
  [/CrOS/, "ChromeOS"], [/Linux|X11/, "Linux"],
];

/** "Firefox on Linux", from a User-Agent. */
export function readable(agent) {
  const [browser, system] = [BROWSERS, SYSTEMS].map((names) => names.find(([pattern]) => pattern.test(agent))?.[1]);
  return (browser ?? "Some browser") + (system ? ` on ${system}` : "");
}

export function sessionRow({ created, used, origin, browser, current }, act) {
  const name = readable(browser);
  const when = current ? "This one" : `Used ${ago(used)}`;
  const hint = [when, `logged in ${ago(created)}`, origin].filter(Boolean).join(" · ");
  return row({ name, title: browser, hint, action: current ? "" : "End", label: `End ${name}, ${when}`, act });
}

export function passkeyRow({ name, created, used }, act) {
  const hint = `Added ${ago(created)} · ${used ? `used ${ago(used)}` : "never used"}`;
  return row({ name, hint, action: "Remove", label: `Remove the passkey ${name}`, act });
}

export function linkRow({ provider, created }, names, act) {
  const name = names.get(provider) ?? provider;
  return row({ name, hint: `Linked ${ago(created)}`, action: "Remove", label: `Remove the sign-in by ${name}`, act });
}
