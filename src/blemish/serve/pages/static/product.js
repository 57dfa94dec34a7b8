// One product: good pictures in, learning with live progress, versions, and pictures to try it on.
import { api } from "./api.js";
import { act, all, badge, context, count, dropZone, follow, h, isOver, listen, notice, number, one } from "./dom.js";

const product = context().product;
const AT_ONCE = 4; // pictures a request, so that progress shows
let isReloading = false;

async function upload(files) {
  const bar = one("#upload"), text = one("#upload-text");
  bar.hidden = false;
  bar.max = files.length;
  let added = 0, repeated = 0;
  const refused = [];
  try {
    for (let i = 0; i < files.length; i += AT_ONCE) {
      bar.value = i;
      text.textContent = `${i} of ${files.length} pictures`;
      const found = await api.addGood(product, files.slice(i, i + AT_ONCE));
      added += found.added.length;
      repeated += found.repeated;
      refused.push(...found.refused);
    }
  } catch (error) {
    notice(error.message, "trouble");
  }
  bar.hidden = true;
  text.textContent = "";
  const words = [`${count(added, "picture")} added`];
  if (repeated) words.push(`${repeated} were there already`);
  if (refused.length) words.push(`${refused.length} could not be read: ${refused.map((one) => `${one.name} (${one.error})`).join(", ")}`);
  sessionStorage.setItem("notice", JSON.stringify([`${words.join("; ")}.`, refused.length ? "trouble" : "done"]));
  location.reload();
}

function showJob(job) {
  if (job.product !== product) return;
  const place = one("#job"), over = isOver(job);
  place.hidden = false;
  place.dataset.job = job.id;
  const bar = one("#job-bar"), words = one("#job-words");
  if (job.total > 0) {
    bar.max = job.total;
    bar.value = job.done;
  }
  one("#cancel").hidden = over;
  const learn = one("#learn");
  if (learn) learn.disabled = !over || Number(learn.dataset.good) === 0;
  words.textContent = {
    waiting: "Waits for another product to end its learning.",
    running: job.total > 0 ? `Learning, step ${Math.floor(job.done)} of ${job.total}.` : "Learning begins.",
    done: "Learned.",
    failed: `Learning failed: ${job.error}`,
    cancelled: "Learning was cancelled; the version before holds.",
    interrupted: "Learning was interrupted, as the service stopped; start it again.",
  }[job.state];
  place.classList.toggle("trouble", job.state === "failed" || job.state === "interrupted");
  if (job.state === "done" && !isReloading) { // events and polling both say so: a second time would undo what was begun since
    isReloading = true;
    sessionStorage.setItem("notice", JSON.stringify(["Learned: the new version judges from now on.", "done"]));
    location.reload();
  }
}

async function tryOn(files) {
  const list = one("#tried");
  for (const file of files) {
    const row = h("li", { class: "tried" }, h("span", { class: "soft" }, `${file.name} …`));
    list.prepend(row);
    try {
      const found = await api.tryOut(product, file);
      row.replaceChildren(
        h("details", {},
          h("summary", {}, h("img", { src: found.overlay, alt: `Picture of ${file.name}, outlined`, width: 96, height: 96 })),
          h("img", { class: "whole", src: found.overlay, alt: "" })),
        h("div", {}, badge(found.verdict), " ", file.name,
          h("p", { class: "soft" }, `score ${number(found.score)}, limit ${number(found.threshold)}. ${(found.prediction.regions[0] || { words: "" }).words}`)),
      );
    } catch (error) {
      row.replaceChildren(h("span", { class: "trouble" }, `${file.name}: ${error.message}`));
    }
  }
}

const said = sessionStorage.getItem("notice");
if (said) {
  sessionStorage.removeItem("notice");
  notice(...JSON.parse(said));
}
if (one("#drop")) dropZone(one("#drop"), upload);
if (one("#try")) dropZone(one("#try"), tryOn);

const learn = one("#learn");
if (learn) learn.addEventListener("click", () => act(null, async () => follow(await api.learn(product), showJob)));
one("#cancel").addEventListener("click", (event) => act(event.target, async () => showJob(await api.cancelJob(one("#job").dataset.job))));
for (const button of all("[data-remove]")) {
  button.addEventListener("click", () => act(button, async () => {
    await api.removeGood(product, button.dataset.remove);
    location.reload();
  }));
}
for (const button of all("[data-version]")) {
  button.addEventListener("click", () => act(button, async () => {
    await api.activate(product, button.dataset.version);
    sessionStorage.setItem("notice", JSON.stringify([`Version ${button.dataset.number} judges from now on.`, "done"]));
    location.reload();
  }));
}
const present = one("#job");
if (present.dataset.job) act(null, async () => follow(await api.job(present.dataset.job), showJob));
listen(["job"], (_, job) => showJob(job));
