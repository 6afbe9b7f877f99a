/* What starts the page: its parts join, then it is asked who is in. The views join after `place.js`, which they read. */

import "./place.js";
import "./gallery.js";
import "./trash.js";
import "./notes.js";
import "./account.js";
import { look } from "./address.js";
import { showProviders } from "./door.js";
import { $ } from "./say.js";
import { onWaiting } from "./server.js";

onWaiting((is) => { $("waiting").hidden = !is; });
showProviders();
look();
