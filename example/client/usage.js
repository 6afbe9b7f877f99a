/* How much of the box is taken, and sizes in words. */

import { $ } from "./say.js";
import { get } from "./server.js";
import { complain, join, user } from "./who.js";

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** "1.2 MB"; "0 bytes". */
export function size(bytes) {
  const step = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** step;
  const format = { style: "unit", unit: UNITS[step], unitDisplay: step ? "short" : "long", maximumFractionDigits: value < 100 ? 1 : 0 };
  return new Intl.NumberFormat("en", format).format(value);
}

/** Asks, and shows it. */
export async function showUsage() {
  const mine = user;
  try {
    const { bytes, quota } = await get("/files/usage");
    if (user !== mine) return;
    $("usage").hidden = false;
    $("usage-text").textContent = `${size(bytes)} of ${size(quota)}`;
    $("usage-meter").value = bytes / quota;
  } catch (error) {
    if (user === mine) complain((reason) => `What your box takes could not be fetched: ${reason}.`, error);
  }
}

join({ arrive: showUsage });
