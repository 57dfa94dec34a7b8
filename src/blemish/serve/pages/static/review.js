// One big picture, one key a decision. What is decided goes to the service at once; the next picture follows.
import { api } from "./api.js";
import { act, all, badge, clock, context, count, h, isTyping, listen, nameOf, notice, number, one } from "./dom.js";

const product = context().product, place = one("#review");
let queue = [], part = null, view = "overlay", last = Promise.resolve(), running = 0;
const seen = new Set(); // put off with Next: they come again with the next visit

async function fill() {
  const found = await api.parts({ product, state: "open", limit: 100 });
  queue = found.parts.filter((other) => !seen.has(other.id) && other.id !== part?.id);
  one("#waiting").textContent = found.total;
  one("#waiting").hidden = found.total === 0;
  if (part) say(found.total);
  return found.total;
}

const why = (shown) => {
  if (shown.review) return "decided already";
  if (shown.verdict === "good") return "in the random sample of passes";
  return shown.is_for_review ? "an alarm" : "";
};
const say = (total) => {
  one("#place").textContent = total ? `${count(total, "part")} to review` : "";
};

function reasons(shown) {
  const regions = shown.prediction.regions || [];
  if (!regions.length) return [h("li", { class: "soft" }, shown.error || "No place on the part stands out.")];
  return regions.slice(0, 6).map((region, i) => {
    const crop = (kind, words) => h("figure", {}, h("img", { src: `/parts/${shown.id}/regions/${i}/${kind}`, alt: words, width: 120, height: 120 }), h("figcaption", {}, words));
    const hasMatch = Boolean(region.attributes && region.attributes.match);
    return h("li", {}, h("p", {}, region.words || `Place ${i + 1} stands out.`),
      shown.links.image ? h("div", { class: "pair" }, crop("found", "this part"), hasMatch ? crop("good", "a good part") : null) : null);
  });
}

function show(shown) {
  part = shown;
  one("#nothing").hidden = Boolean(shown);
  place.hidden = !shown;
  if (!shown) return;
  paint();
  one("#verdict").replaceChildren(badge(shown.error ? "error" : shown.verdict), " ", h("span", { class: "soft" }, why(shown)));
  one("#name").textContent = nameOf(shown);
  one("#facts").textContent = shown.score === null ? clock(shown.received_at) : `score ${number(shown.score)}, limit ${number(shown.threshold)} · ${clock(shown.received_at)}`;
  one("#reasons").replaceChildren(...reasons(shown));
  one("#history").textContent = shown.review ? `${shown.review.who} decided: ${shown.review.decision}${shown.review.defect ? `, ${shown.review.defect}` : ""}.` : "";
  one("#defect").value = shown.review ? shown.review.defect : "";
  for (const button of all(".decide [data-act]")) button.setAttribute("aria-pressed", String(shown.review?.decision === button.dataset.act));
  const next = queue[0];
  if (next?.links.overlay) new Image().src = next.links.overlay; // drawn before it is asked for
}

function paint() {
  const image = one("#picture");
  image.hidden = !part.links[view];
  if (part.links[view]) image.src = part.links[view];
  image.alt = `${nameOf(part)}, ${{ overlay: "outlined", image: "as it came", heat: "as heat" }[view]}`;
  for (const button of all("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
}

function turn(to) {
  view = to;
  if (part) paint();
}

async function forward() {
  if (!queue.length) await fill();
  show(queue.shift() || null);
  act(null, fill); // meanwhile the next one can be decided
}

async function decide(decision) {
  if (!part || part.error) return;
  const name = decision === "defective" ? one("#defect").value : "";
  await api.review(part.id, decision, name);
  seen.add(part.id);
  notice(`${nameOf(part)}: ${name || decision}. Z takes it back.`);
  one("#defect").blur();
  if (name) act(null, names);
  await forward();
}

async function undo() {
  const back = await api.undoReview();
  if (part && part.id !== back.id) queue.unshift(part);
  if (back.product !== product) return notice(`Taken back: ${nameOf(back)} of another product.`);
  seen.delete(back.id);
  show(back);
  act(null, fill);
  return notice(`Taken back: ${nameOf(back)}.`);
}

async function next() {
  if (part) seen.add(part.id);
  await forward();
  if (!part && seen.size) {
    seen.clear(); // once round: begin again with those put off
    await forward();
  }
}

const ACTS = { good: () => decide("good"), defective: () => decide("defective"), unsure: () => decide("unsure"), undo, next };
const KEYS = { g: "good", d: "defective", u: "unsure", z: "undo", n: "next", ArrowRight: "next" };
const VIEWS = { 1: "overlay", 2: "image", 3: "heat" };

// One after the other. A decision while another is under way is meant for the picture before, and is left out.
function run(name) {
  if (running && ["good", "defective", "unsure"].includes(name)) return;
  running += 1;
  last = last.then(() => act(null, ACTS[name])).then(() => {
    running -= 1;
  });
}

async function names() {
  const { defects } = await api.defects(product);
  const known = Object.keys(defects).slice(0, 12);
  one("#names").replaceChildren(...known.map((name) => h("option", { value: name })));
  one("#chips").replaceChildren(...known.slice(0, 6).map((name) => h("button", { type: "button", onclick: () => {
    one("#defect").value = name;
    run("defective");
  } }, name)));
}

for (const button of all("[data-act]")) button.addEventListener("click", () => run(button.dataset.act));
for (const button of all("[data-view]")) button.addEventListener("click", () => turn(button.dataset.view));
one("#defect").addEventListener("keydown", (event) => {
  if (event.key === "Enter") run("defective");
  if (event.key === "Escape") event.target.blur();
});
addEventListener("keydown", (event) => {
  if (event.repeat || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !event.target.closest("button, a")) {
    event.preventDefault();
    turn(view === "overlay" ? "image" : "overlay");
  } else if (VIEWS[event.key]) turn(VIEWS[event.key]);
  else {
    const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (name) {
      event.preventDefault();
      run(name);
    }
  }
});
listen(["part"], (_, other) => {
  if (other.product !== product || !other.is_for_review) return;
  run(part ? "refill" : "next");
});
ACTS.refill = fill;
act(null, async () => {
  await names();
  if (place.dataset.part) {
    show(await api.part(place.dataset.part));
    await fill();
  } else await forward();
});
