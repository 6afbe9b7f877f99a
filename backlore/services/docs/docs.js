/* The routes of /openapi.json, to read and to try. What the document and the replies say is text, never markup. */

const $ = (id) => document.getElementById(id);
const clone = (id) => $(id).content.firstElementChild.cloneNode(true);

const STAGES = { // in the order of a request's way
  public: "No session needed.",
  auth: "No session needed; other sites’ pages are kept out.",
  private: "For who is logged in. What changes something carries the csrf token: this page fetches it.",
  admin: "For admins.",
};
const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const DEPTH = 5; // of an example: a type may hold itself

let schemas = {}; // by their reference

const resolve = (schema) => schemas[schema?.$ref] ?? schema ?? {};
const kinds = (schema) => resolve(schema).anyOf ?? [resolve(schema)];
const some = (schema) => resolve(kinds(schema).find((each) => each.type !== "null"));

/* ---- what is said of a schema */

/** A value that fits, as far as a schema tells. `name` is the field's. */
function example(schema, name = "", depth = 0) {
  const known = some(schema);
  const given = schema.default ?? known.default ?? known.const ?? known.enum?.[0];
  if (given != null) return given;
  if (kinds(schema).some((each) => each.type === "null") && depth) return null;
  if (depth > DEPTH) return null;
  switch (known.type) {
    case "object":
      return Object.fromEntries(
        Object.entries(known.properties ?? {}).map(([key, each]) => [key, example(each, key, depth + 1)]));
    case "array": return Array.from({ length: known.minItems ?? 0 }, () => example(known.items ?? {}, name, depth + 1));
    case "integer": return known.minimum ?? (known.exclusiveMinimum ?? 0) + 1;
    case "number": return known.minimum ?? 1;
    case "boolean": return false;
    case "string": return text(known, name);
    default: return null;
  }
}

function text({ format, minLength = 0, maxLength = Infinity }, name) {
  if (format === "date-time") return new Date().toISOString();
  if (format === "date") return new Date().toISOString().slice(0, 10);
  if (format === "uuid") return "00000000-0000-4000-8000-000000000000";
  const word = { email: "ann@example.com", password: "correct horse battery" }[name] ?? (name || "text");
  return word.padEnd(minLength, "a").slice(0, maxLength);
}

const amount = (number) => (number > 2 ** 31 && Number.isInteger(Math.log2(number)) ? `2^${Math.log2(number)}` : number.toLocaleString("en"));

function span(least, most, noun) {
  if (least && most !== undefined) return `${amount(least)}${least === most ? "" : ` to ${amount(most)}`} ${noun}`;
  if (most !== undefined) return `up to ${amount(most)} ${noun}`;
  return least ? `at least ${amount(least)} ${noun}` : "";
}

/** A schema in words. */
function words(schema) {
  const known = resolve(schema);
  if (known.anyOf) return known.anyOf.map(words).join(" or ");
  if (known.enum) return known.enum.map((value) => JSON.stringify(value)).join(" or ");
  switch (known.type) {
    case "string": {
      const pattern = known.pattern && `matching ${known.pattern.replace(/^\^\(\?:(.*)\)\$\(\?!\\n\)$/s, "$1")}`; // as `matching` wraps it
      const kind = known.format === "binary" ? "a file" : known.format ?? known.description ?? pattern;
      return [kind, span(known.minLength, known.maxLength, "characters")].filter(Boolean).join(", ") || "a string";
    }
    case "integer": case "number": {
      const bounds = [["from", known.minimum], ["to", known.maximum]].filter(([, bound]) => bound !== undefined);
      return [known.type === "integer" ? "a whole number" : "a number",
        ...bounds.map(([word, bound]) => `${word} ${amount(bound)}`)].join(" ");
    }
    case "boolean": return "true or false";
    case "null": return "null";
    case "array": return `a list of ${span(known.minItems, known.maxItems, "items") || "items"}: ${words(known.items ?? {})}`;
    case "object": return known.properties ? `{${Object.keys(known.properties).join(", ")}}` : "an object";
    default: return "anything";
  }
}

/** The fields of an object, a line each. */
function lines(schema) {
  const { properties = {}, required = [] } = some(schema);
  return Object.entries(properties)
    .map(([name, each]) => `${name}: ${words(each)}${required.includes(name) ? "" : ", optional"}`).join("\n");
}

/* ---- the page */

/** One route of the list. */
function draw(method, path, operation) {
  const element = clone("route");
  const part = (name) => element.querySelector(`.${name}`);
  element.id = `${method}-${path}`;
  element.dataset.words = `${method} ${path} ${operation.summary ?? ""}`.toLowerCase();
  part("method").textContent = method.toUpperCase();
  part("method").classList.add(method);
  part("path").textContent = path;
  part("summary").textContent = operation.summary ?? "";
  part("description").textContent = operation.description ?? "";
  for (const [status, { description }] of Object.entries(operation.responses ?? {})) {
    const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, meaning.textContent] = [status, description];
    element.querySelector("dl").append(term, meaning);
  }
  const form = element.querySelector("form");
  for (const field of fields(operation)) part("fields").append(control(element.id, field));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(element, method, path, operation);
  });
  form.addEventListener("reset", () => { part("answer").hidden = true; });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  element.addEventListener("toggle", () => {
    if (element.open) history.replaceState(null, "", `#${encodeURIComponent(element.id)}`);
  });
  return element;
}

/** What a person may give: {place, name, what, required, value, file}. */
function fields({ parameters = [], requestBody }) {
  const found = parameters.map(({ in: place, name, required, schema }) => ({
    place, name, required, what: words(schema), value: required ? String(example(schema, name) ?? "") : "",
  }));
  const [[kind, { schema }] = ["", {}]] = Object.entries(requestBody?.content ?? {});
  if (kind === "application/json") {
    found.push({ place: "body", name: "body", required: true, what: lines(schema), value: JSON.stringify(example(schema), null, 2) });
  } else if (kind) {
    const { properties = {}, required = [] } = some(schema);
    for (const [name, each] of Object.entries(properties)) {
      const file = [some(each), some(some(each).items ?? {})].some(({ format }) => format === "binary");
      const value = file || !required.includes(name) ? "" : String(example(each, name) ?? "");
      found.push({ place: "part", name, required: required.includes(name), what: words(each), value, file });
    }
  }
  return found;
}

function control(id, { place, name, required, what, value, file }) {
  const element = clone("field");
  const input = document.createElement(place === "body" ? "textarea" : "input");
  const [label, explained] = element.children;
  input.id = `${id}_${place}_${name}`;
  input.name = `${place} ${name}`;
  input.spellcheck = false;
  input.autocomplete = "off";
  if (file) Object.assign(input, { type: "file", multiple: true });
  else input.defaultValue = value;
  if (place === "body") input.rows = value.split("\n").length + 1;
  label.htmlFor = input.id;
  label.textContent = place === "body" ? "JSON body" : name;
  const hint = document.createElement("small");
  hint.textContent = ` ${place === "part" ? "in the form" : place === "body" ? "" : `in the ${place}`}${required ? "" : ", optional"}`;
  label.append(hint);
  explained.textContent = what;
  explained.id = `${input.id}_what`;
  input.setAttribute("aria-describedby", explained.id);
  label.after(input);
  return element;
}

/** What the form says, as a request: [address, options]. An empty field that is optional is not sent. */
function compose(form, method, path, { parameters = [], requestBody }) {
  const typed = (place, name) => form.elements[`${place} ${name}`];
  const query = new URLSearchParams();
  const options = { method: method.toUpperCase(), headers: {}, cache: "no-store" };
  for (const { in: place, name, required } of parameters) {
    const { value } = typed(place, name);
    if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value || required) query.append(name, value);
  }
  if (requestBody?.content["application/json"]) {
    options.headers["content-type"] = "application/json";
    options.body = typed("body", "body").value;
  } else if (requestBody) {
    options.body = new FormData();
    for (const input of form.querySelectorAll("[name^='part ']")) {
      const name = input.name.slice("part ".length);
      for (const value of input.files ?? (input.value ? [input.value] : [])) options.body.append(name, value);
    }
  }
  return [query.size ? `${path}?${query}` : path, options];
}

async function send(element, method, path, operation) {
  const [address, options] = compose(element.querySelector("form"), method, path, operation);
  const part = (name) => element.querySelector(`.answer .${name}`);
  const button = element.querySelector(".send");
  button.disabled = true;
  try {
    if (operation.security?.some((each) => each.csrf)) options.headers["x-csrf-token"] = await csrf();
    const began = performance.now();
    const response = await fetch(address, options);
    const body = await response.blob();
    const took = performance.now() - began;
    part("status").textContent = `${response.status} ${response.statusText}`;
    part("status").classList.toggle("refused", !response.ok);
    part("time").textContent = `${took.toFixed(1)} ms, ${body.size.toLocaleString("en")} bytes`;
    part("headers").textContent = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    part("content").textContent = await show(body, response.headers.get("content-type") ?? "");
  } catch (error) {
    part("status").textContent = "No reply";
    part("status").classList.add("refused");
    part("time").textContent = part("headers").textContent = "";
    part("content").textContent = error.message;
  }
  button.disabled = false;
  button.focus({ preventScroll: true });
  element.querySelector(".answer").hidden = false;
  await csrf();
}

/** A body as text. */
async function show(body, type) {
  if (!body.size) return "(empty)";
  if (!/^text\/|json|xml|javascript/.test(type)) return `(${type || "of no type"})`;
  const raw = await body.text();
  try {
    return type.includes("json") ? JSON.stringify(JSON.parse(raw), null, 2) : raw;
  } catch {
    return raw;
  }
}

/** The token of the session, "" without one. Says who is logged in. */
async function csrf() {
  try {
    const response = await fetch("/auth/csrf", { cache: "no-store" });
    const session = await response.json();
    $("who").textContent = session.user ? `Logged in: ${session.user.email}` : "Not logged in: send POST /auth/login.";
    return session.csrf ?? "";
  } catch {
    $("who").textContent = "The server is unreachable.";
    return "";
  }
}

/** Hides what hasn't all of the words. */
function filter() {
  const wanted = $("filter").value.toLowerCase().split(/\s+/);
  const routes = [...document.querySelectorAll("#stages > section > details")];
  for (const route of routes) route.hidden = !wanted.every((word) => route.dataset.words.includes(word));
  for (const stage of $("stages").children) stage.hidden = !stage.querySelector(":scope > details:not([hidden])");
  const count = routes.filter((route) => !route.hidden).length;
  $("none").hidden = count > 0;
  $("count").textContent = `${count} of ${routes.length} routes`;
}

async function start() {
  const { info, paths, components } = await (await fetch("/openapi.json")).json();
  for (const [name, schema] of Object.entries(components.schemas)) schemas[`#/components/schemas/${name}`] = schema;
  document.title = $("title").textContent = `${info.title}: routes`;
  const routes = Object.entries(paths).flatMap(([path, each]) =>
    METHODS.filter((method) => method in each).map((method) => [method, path, each[method]]));
  for (const [stage, about] of Object.entries(STAGES)) {
    const of = routes.filter(([, , { tags }]) => tags.includes(stage));
    if (!of.length) continue;
    const section = clone("stage");
    section.querySelector("h2").textContent = stage;
    section.querySelector(".about").textContent = about;
    section.append(...of.map((route) => draw(...route)));
    $("stages").append(section);
  }
  filter();
  const opened = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (opened?.matches("details")) {
    opened.open = true;
    opened.scrollIntoView();
  }
}

$("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea")) return;
  event.preventDefault();
  $("filter").focus();
});
await Promise.all([start(), csrf()]);
