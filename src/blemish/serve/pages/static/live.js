// The line as it runs: the last part and its verdict in large, rate, trend, and what has drifted.
import { api } from "./api.js";
import { VERDICTS, act, badge, clock, context, h, listen, nameOf, notice, number, one, percent, svg } from "./dom.js";

const product = context().product, place = one(".live");
const SPAN = 100; // parts that rate and trend look back on
let parts = []; // latest first

function latest(part) {
  const verdict = part.error ? "error" : part.verdict, { mark, word } = VERDICTS[verdict];
  const box = one("#latest-verdict");
  box.className = `verdict ${verdict}`;
  one(".mark", box).textContent = mark;
  one(".word", box).textContent = word;
  const image = one("#latest-picture");
  image.hidden = !part.links.overlay;
  one("#latest-none").hidden = true;
  if (part.links.overlay) image.src = part.links.overlay;
  image.alt = `${nameOf(part)}, outlined`;
  const words = (part.prediction.regions || [])[0]?.words || part.error;
  one("#latest-facts").textContent = `${nameOf(part)} · ${clock(part.received_at)}${part.score === null ? "" : ` · score ${number(part.score)}, limit ${number(part.threshold)}`}${words ? ` · ${words}` : ""}`;
}

function figures() {
  const span = parts.slice(0, SPAN), share = (verdict) => span.filter((part) => part.verdict === verdict).length / span.length;
  if (!span.length) return;
  one("#rate").textContent = percent(share("defective"));
  one("#rate-of").textContent = span.length;
  one("#unsure-rate").textContent = percent(share("unsure"));
  const seconds = span[0].received_at - span[span.length - 1].received_at;
  one("#pace").textContent = span.length > 1 && seconds > 0 ? number((60 * (span.length - 1)) / seconds, 2) : "–";
}

function trend() {
  const chart = one("#trend"), width = chart.clientWidth, height = 120, most = 2;
  const span = parts.slice(0, SPAN).filter((part) => part.score !== null && part.threshold > 0).reverse();
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const x = (i) => 10 + (i / Math.max(SPAN - 1, 1)) * (width - 20), y = (excess) => height - 12 - (Math.min(excess, most) / most) * (height - 24);
  const dots = span.map((part, i) => {
    const isAlarm = part.verdict === "defective" || part.verdict === "unknown";
    const at = { class: `dot ${part.verdict}` }, cx = x(i + SPAN - span.length), cy = y(part.score / part.threshold);
    return isAlarm ? svg("path", { ...at, d: `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8` }) : svg("circle", { ...at, cx, cy, r: 2.6 });
  });
  chart.replaceChildren(svg("line", { class: "limit", x1: 10, x2: width - 10, y1: y(1), y2: y(1) }), ...dots);
  chart.setAttribute("aria-label", `Scores of the last ${span.length} parts; ${span.filter((part) => part.score > part.threshold).length} above the limit`);
}

function last() {
  one("#last").replaceChildren(...parts.slice(0, Number(place.dataset.most)).map((part) => h("li", {},
    h("a", { class: "tile", href: `/products/${product}/review?part=${part.id}` },
      part.links.thumbnail ? h("img", { src: part.links.thumbnail, alt: nameOf(part), width: 96, height: 96 }) : h("span", { class: "blank" }, "no picture"),
      badge(part.error ? "error" : part.verdict)))));
}

function show() {
  if (parts.length) latest(parts[0]);
  figures();
  trend();
  last();
}

// What has drifted: the cause in words, what to look at, and what a person did about it.
async function drift() {
  const { alarms } = await api.monitor(product);
  const answer = (words, accept) => h("button", { type: "button", onclick: (event) => act(event.target, async () => {
    await api.restartMonitor(product, accept);
    notice(accept ? "Taken as the new normal." : "Watching anew from now on.");
    await drift();
  }) }, words);
  one("#alarms").replaceChildren(...alarms.map((alarm) => h("li", { class: "alarm" },
    h("h2", {}, h("span", { class: "mark error", "aria-hidden": "true" }, "!"), "The line has changed"),
    h("p", {}, `${alarm.text.charAt(0).toUpperCase()}${alarm.text.slice(1)}.`),
    h("p", { class: "soft" }, `Noticed after ${alarm.parts} parts.`))));
  one("#drift").hidden = !alarms.length || context().role !== "engineer";
  one("#drift").replaceChildren(answer("It is mended", false), answer("That is how it is from now on", true));
}

if (place) {
  one("#trigger")?.addEventListener("click", (event) => act(event.target, () => api.trigger(product)));
  let frame = 0;
  const events = listen(["part", "alarm"], (kind, part) => {
    if (kind === "alarm") {
      if (part.product === product) act(null, drift);
      return;
    }
    if (part.product !== product || parts.some((other) => other.id === part.id)) return;
    parts = [part, ...parts].slice(0, SPAN);
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      show();
    });
  });
  // Once it listens, and again after a lost connection, so that nothing falls between.
  events.addEventListener("open", () => act(null, async () => {
    const found = (await api.parts({ product, limit: SPAN })).parts, first = found.length ? found[0].seq : 0;
    parts = [...parts.filter((part) => part.seq > first), ...found].slice(0, SPAN);
    show();
    await drift();
  }));
  new ResizeObserver(trend).observe(one("#trend"));
}
