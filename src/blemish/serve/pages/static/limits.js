// The limits among the scores: two that can be dragged or moved by keys, and what they would change.
import { api } from "./api.js";
import { act, badge, context, count, follow, h, notice, number, one, percent, svg } from "./dom.js";

const product = context().product, mayApply = context().role === "engineer";
const ROWS = [
  ["good", "good, not learned from", "good"],
  ["reviewed_good", "decided good", "good"],
  ["unlabelled", "not decided", "calm"],
  ["defective", "decided defective", "defect"],
];
const TOP = 58, ROW = 64, GAP = 22, SIDE = 16, FOOT = 34;
const chart = one("#chart");
let data, limits, asking = null, timer = 0;

const isMoved = () => limits.threshold !== data.threshold || limits.unsure_threshold !== data.unsure_threshold;
const verdictOf = (score) => (score > limits.threshold ? "defective" : score > limits.unsure_threshold ? "unsure" : "good");
const tally = (scores) => scores.reduce((sum, score) => ({ ...sum, [verdictOf(score)]: sum[verdictOf(score)] + 1 }), { good: 0, unsure: 0, defective: 0 });

function scale() {
  const width = chart.clientWidth, last = data.edges.length - 1;
  const low = data.edges[0], high = data.edges[last];
  return {
    width, low, high,
    x: (score) => SIDE + ((Math.min(Math.max(score, low), high) - low) / (high - low)) * (width - 2 * SIDE),
    score: (x) => low + Math.min(1, Math.max(0, (x - SIDE) / (width - 2 * SIDE))) * (high - low),
  };
}

function ticksOf(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9));
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function bars(kind, tone, top, axis) {
  const counts = data.counts[kind], most = Math.max(1, ...counts);
  return counts.map((n, i) => {
    if (!n) return null;
    const left = axis.x(data.edges[i]), height = Math.max(2, (n / most) * ROW);
    return svg("rect", { class: `bar t-${tone}`, x: left + 0.5, y: top + ROW - height, width: Math.max(1, axis.x(data.edges[i + 1]) - left - 1), height });
  });
}

function zone(name, from, to, height) {
  if (to - from < 2) return null;
  const words = to - from > 64 ? svg("text", { x: (from + to) / 2, y: 14, "text-anchor": "middle", class: `zone-name ${name}` }, name) : null;
  return svg("g", {}, svg("rect", { class: `zone ${name}`, x: from, y: 0, width: to - from, height }), words);
}

function handle(key, name, y) {
  return svg("g", {
    class: "handle", id: `handle-${key}`, role: "slider", tabindex: "0", "aria-label": `${name} limit`, "aria-orientation": "horizontal",
    onpointerdown: grab, onkeydown: move, "data-key": key, "data-y": y, "data-name": name,
  },
  svg("line", { class: "limit" }),
  svg("rect", { class: "hit", y: y - 22, height: 44, width: 44 }),
  svg("circle", { class: "grip", cy: y, r: 11 }),
  svg("text", { class: "limit-name", y: y + 4 }, name));
}

// Everything but the handles is drawn anew; they stay, so that the one in use keeps the pointer and the focus.
function draw() {
  const axis = scale(), shown = ROWS.filter(([kind]) => data.totals[kind] > 0 || kind === "good");
  const bottom = TOP + shown.length * (ROW + GAP), height = bottom + FOOT;
  chart.setAttribute("height", height);
  chart.setAttribute("viewBox", `0 0 ${axis.width} ${height}`);
  const unsure = axis.x(limits.unsure_threshold), defective = axis.x(limits.threshold);
  const rows = shown.map(([kind, words, tone], i) => {
    const top = TOP + i * (ROW + GAP) + GAP - 4;
    return svg("g", {}, ...bars(kind, tone, top, axis).filter(Boolean),
      svg("line", { class: "axis", x1: SIDE, x2: axis.width - SIDE, y1: top + ROW, y2: top + ROW }),
      svg("text", { class: "label halo", x: SIDE, y: top - 4 }, `${words} (${data.totals[kind]})`));
  });
  const ticks = ticksOf(axis.low, axis.high).map((score) => svg("text", { class: "tick", x: axis.x(score), y: bottom + 18, "text-anchor": "middle" }, number(score)));
  const drawn = svg("g", { id: "drawn" }, zone("good", 0, unsure, bottom), zone("unsure", unsure, defective, bottom), zone("defective", defective, axis.width, bottom), ...rows, ...ticks);
  const before = one("#drawn");
  if (before) before.replaceWith(drawn);
  else chart.append(drawn, handle("unsure_threshold", "unsure", 30), handle("threshold", "defective", 48));
  place("unsure_threshold", unsure, bottom, axis);
  place("threshold", defective, bottom, axis);
  if (document.activeElement !== one("#unsure")) one("#unsure").value = number(limits.unsure_threshold, 4).replaceAll(",", "");
  if (document.activeElement !== one("#defective")) one("#defective").value = number(limits.threshold, 4).replaceAll(",", "");
}

function place(key, x, bottom, axis) {
  const group = one(`#handle-${key}`), [line, hit, grip, words] = group.children, y = Number(group.dataset.y);
  for (const [name, value] of Object.entries({ x1: x, x2: x, y1: y, y2: bottom })) line.setAttribute(name, value);
  hit.setAttribute("x", x - 22);
  grip.setAttribute("cx", x);
  const isLeft = key === "unsure_threshold" ? x > 170 : x > axis.width - 190;
  words.textContent = `${group.dataset.name} above ${number(limits[key])}`;
  words.setAttribute("x", isLeft ? x - 17 : x + 17);
  words.setAttribute("text-anchor", isLeft ? "end" : "start");
  for (const [name, value] of Object.entries({ valuemin: axis.low, valuemax: axis.high, valuenow: limits[key], valuetext: number(limits[key]) })) group.setAttribute(`aria-${name}`, value);
}

function say() {
  const heldOut = tally(data.scores.good), total = data.scores.good.length;
  one("#says-good").textContent = `${heldOut.defective} of ${total} good ones would be rejected${limits.unsure_threshold < limits.threshold ? `, ${heldOut.unsure} would be unsure` : ""}.`;
  const defects = tally(data.scores.defective), all = data.scores.defective.length;
  one("#says-defective").textContent = all
    ? `${defects.defective} of ${all} parts decided defective would be found, ${defects.unsure} would be unsure, ${defects.good} would pass.`
    : "No part has been decided defective yet, so how many would be found is not known.";
  const parts = tally([...data.scores.unlabelled, ...data.scores.reviewed_good, ...data.scores.defective]), sum = parts.good + parts.unsure + parts.defective;
  one("#says-parts").textContent = sum ? `Of ${count(sum, "inspected part")}: ${parts.defective} defective, ${parts.unsure} unsure, ${parts.good} good.` : "";
  one("#rests").textContent = `${data.rests_on} Each row has its own scale.`;
  one("#reset").disabled = !isMoved();
  if (mayApply) one("#apply").disabled = !isMoved();
}

function showFlips(found, none) {
  const n = found.flips.length;
  one("#flips-title").textContent = n ? `${n} of ${found.parts.total} decisions would change` : "Decisions that would change";
  if (n) one("#flips").replaceChildren(...found.flips.slice(0, 60).map((row) => picture(row, badge(row.before), " → ", badge(row.after), ` ${number(row.score)}`)));
  else one("#flips").replaceChildren(h("p", { class: "soft" }, none));
}

const picture = (row, ...words) => h("a", { class: "tile", href: `/products/${product}/review?part=${row.part}` },
  h("img", { src: `/api/parts/${row.part}/overlay`, alt: "Part, outlined", width: 140, height: 140, loading: "lazy" }), h("span", { class: "label" }, ...words));
const before = new Map();

async function preview() {
  if (asking) asking.abort();
  asking = new AbortController();
  try {
    const found = await api.previewLimits({ product, ...limits }, asking.signal);
    showFlips(found, !found.parts.total ? "No part has been inspected with this model yet." : isMoved() ? `None of the last ${found.parts.total}.` : "Move a limit to see them.");
    for (const [place, key] of [["#near-defective", "threshold"], ["#near-unsure", "unsure_threshold"]]) {
      const rows = found.nearest[key], words = rows.map((row) => row.part + (row.score > limits[key])).join();
      if (before.get(place) === words && rows.length) continue; // the same pictures: nothing moves
      before.set(place, words);
      one(place).replaceChildren(...(rows.length ? rows.map((row) => picture(row, badge(verdictOf(row.score)), ` ${number(row.score)}`)) : [h("p", { class: "soft" }, "No part has been inspected with this model yet.")]));
    }
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message, "trouble");
  }
}

function change(key, value) {
  const axis = scale(), rounded = Number(Math.min(axis.high, Math.max(0, value)).toPrecision(6));
  // Below the lowest score of a good picture all parts would be defective: the service refuses that.
  const score = key === "threshold" ? Math.max(rounded, Math.min(...data.scores.good)) : rounded;
  limits = { ...limits, [key]: score };
  if (key === "threshold") limits.unsure_threshold = Math.min(limits.unsure_threshold, score);
  else limits.threshold = Math.max(limits.threshold, score);
  show();
}

function show() {
  draw();
  say();
  clearTimeout(timer);
  timer = setTimeout(preview, 200);
}

function grab(event) {
  const group = event.currentTarget, key = group.dataset.key;
  group.focus();
  group.setPointerCapture(event.pointerId);
  event.preventDefault();
  const drag = (to) => change(key, scale().score(to.clientX - chart.getBoundingClientRect().left));
  const drop = () => group.removeEventListener("pointermove", drag);
  group.addEventListener("pointermove", drag);
  group.addEventListener("pointerup", drop, { once: true });
  group.addEventListener("pointercancel", drop, { once: true });
}

function move(event) {
  const axis = scale(), step = ((axis.high - axis.low) / 200) * (event.shiftKey ? 10 : 1), key = event.currentTarget.dataset.key;
  const to = { ArrowLeft: limits[key] - step, ArrowDown: limits[key] - step, ArrowRight: limits[key] + step, ArrowUp: limits[key] + step,
    PageDown: limits[key] - 10 * step, PageUp: limits[key] + 10 * step, Home: axis.low, End: axis.high }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  change(key, to);
}

async function load() {
  data = await api.limits(product);
  limits = { threshold: data.threshold, unsure_threshold: data.unsure_threshold };
  before.clear();
  show();
  await decisions();
}

// What people decided, and the version that can be made of it.
async function decisions() {
  const state = await api.reviews(product), rate = state.estimated_rate;
  one("#reviews-words").textContent = [
    `${count(state.counted, "good part")} of the random sample (${percent(state.audit_share)} of all) decided, ${state.waiting.length} waiting.`,
    `${count(state.false_alarms, "false alarm")} that can be learned from.`,
    rate === null ? "" : `By the sample, ${percent(rate)} of good parts are rejected.`,
  ].join(" ");
  for (const [id, n] of [["#reviews-preview", state.counted], ["#reviews-limits", state.counted], ["#reviews-learn", state.false_alarms]]) {
    if (one(id)) one(id).disabled = n === 0;
  }
}

function jobMoved(job) {
  const line = one("#reviews-job");
  if (job.state === "done") {
    line.textContent = "Done: the new version judges from now on.";
    act(null, load);
  } else if (job.state === "running") line.textContent = job.total ? `At work, step ${Math.floor(job.done)} of ${job.total}.` : "At work …";
  else line.textContent = job.error || `The work is ${job.state}.`;
}

if (chart) {
  one("#reviews-preview").addEventListener("click", (event) => act(event.target, async () => {
    const found = await api.previewReviews(product);
    one("#reviews-job").textContent = `The defective limit would go from ${number(found.before.threshold)} to ${number(found.after.threshold)}, the unsure one from ${number(found.before.unsure_threshold)} to ${number(found.after.unsure_threshold)}.`;
    showFlips(found, `None of the last ${found.parts.total} decisions would change.`);
  }));
  for (const kind of ["limits", "learn"]) {
    const button = one(`#reviews-${kind}`);
    if (button) button.addEventListener("click", () => act(null, async () => follow(await api.applyReviews(product, kind), jobMoved)));
  }
  for (const [id, key] of [["#unsure", "unsure_threshold"], ["#defective", "threshold"]]) {
    one(id).addEventListener("change", (event) => event.target.value !== "" && change(key, Number(event.target.value)));
  }
  one("#reset").addEventListener("click", () => {
    limits = { threshold: data.threshold, unsure_threshold: data.unsure_threshold };
    show();
  });
  if (mayApply) {
    one("#apply").addEventListener("click", (event) => act(event.target, async () => {
      const version = await api.setLimits({ product, ...limits, version: data.version.id });
      notice(`Version ${version.number} judges with these limits from now on.`);
      await load();
    }).then(() => say()));
  }
  new ResizeObserver(() => data && draw()).observe(chart);
  act(null, load);
}
