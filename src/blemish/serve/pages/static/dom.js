// What all pages share: elements made without any HTML text, notices, verdicts, times, events of the service.
import { api } from "./api.js";

export const VERDICTS = {
  good: { word: "good", mark: "✓" },
  defective: { word: "defective", mark: "✕" },
  unsure: { word: "unsure", mark: "?" },
  unknown: { word: "another part", mark: "≠" },
  error: { word: "unreadable", mark: "!" },
};
const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);
export const one = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];
export const context = () => document.body.dataset; // product, role

export function notice(text, kind = "done") {
  const place = one("#notices");
  const line = h("p", { class: `notice ${kind}` }, text);
  place.replaceChildren(line);
  if (kind === "done") setTimeout(() => line.remove(), 6000);
}

// Runs what a person asked for; what fails is said, and the button rests meanwhile.
export async function act(button, work) {
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    notice(error.message, "trouble");
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

export function badge(verdict) {
  const { word, mark } = VERDICTS[verdict] || VERDICTS.error;
  return h("span", { class: `badge ${verdict || "error"}` }, h("span", { class: "mark", "aria-hidden": "true" }, mark), word);
}

export const nameOf = (part) => part.part_id || part.name || `part ${part.seq}`;
export const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
export const count = (n, word, words = `${word}s`) => `${n} ${n === 1 ? word : words}`;

export const isTyping = (event) => event.target.closest("input, textarea, select, [contenteditable]") !== null;

export function listen(kinds, handle) {
  const source = new EventSource("/api/events");
  for (const kind of kinds) source.addEventListener(kind, (event) => handle(kind, JSON.parse(event.data)));
  addEventListener("pagehide", () => source.close());
  return source;
}

export const isOver = (job) => !["waiting", "running"].includes(job.state);

// Shows a job until it is over. Events say it sooner; this asks, in case one came before anybody listened.
export async function follow(job, show) {
  show(job);
  while (!isOver(job)) {
    await new Promise((done) => setTimeout(done, 1000));
    job = await api.job(job.id);
    show(job);
  }
}

// A zone that takes files by drag and drop, or by its file chooser.
export function dropZone(zone, take) {
  const input = one("input[type=file]", zone);
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files);
  });
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|bmp|png|jpe?g|webp)$/i.test(file.name));
    if (files.length) take(files);
    else notice("No picture was among what you dropped.", "trouble");
  });
}

// How a product learns, as its fields say; a picture size that is left empty is the method's own.
export function settingsOf(form) {
  const given = new FormData(form), size = given.get("image_size");
  return {
    false_alarm_rate: Number(given.get("false_alarm_rate")) / 100,
    detector: given.get("detector"),
    encoder: given.get("encoder"),
    image_size: size ? Number(size) : null,
  };
}

const logout = one("#logout");
if (logout) {
  logout.addEventListener("click", () => act(logout, async () => {
    await api.logout();
    location.assign("/login");
  }));
}
