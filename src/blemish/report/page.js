"use strict";
// A convenience only: the page says everything without it.
(() => {
  document.documentElement.classList.add("js");
  for (const tools of document.querySelectorAll(".tools")) {
    const list = document.getElementById(tools.dataset.list);
    if (!list) continue;
    const items = [...list.children];
    for (const button of tools.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        for (const other of tools.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
        for (const item of items) {
          item.hidden = button.dataset.show !== "" && !(item.dataset.tags || "").split("\n").includes(button.dataset.show);
        }
      });
    }
    const order = tools.querySelector("select");
    if (order) order.addEventListener("change", () => {
      const key = order.value;
      const value = (item) => key === "file" ? item.dataset.file : -Number(item.dataset.score);
      list.append(...[...items].sort((a, b) => { const x = value(a), y = value(b); return x < y ? -1 : x > y ? 1 : 0; }));
    });
  }
  const box = document.createElement("dialog");
  if (!box.showModal) return;
  const close = document.createElement("button"), words = document.createElement("p");
  let large = document.createElement("img");
  close.textContent = "Close";
  box.append(large, words, close);
  document.body.append(box);
  box.addEventListener("click", () => box.close());
  for (const image of document.querySelectorAll("[data-zoom]")) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    const open = () => {
      large.src = image.src; large.alt = image.alt; words.textContent = image.alt; box.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
    });
  }
})();
