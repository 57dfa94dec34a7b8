// The wall: where the defect is, on hover or Space; arrow keys go from picture to picture.
import { all, isTyping, one } from "./dom.js";

const tiles = all("#wall .tile");
let isOver = false;

function turn(tile, over) {
  const image = one("img", tile);
  if (!image) return;
  image.dataset.own ||= image.getAttribute("src");
  image.src = over ? image.dataset.over : image.dataset.own;
  tile.classList.toggle("turned", over);
}

for (const tile of tiles) {
  tile.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && turn(tile, !isOver));
  tile.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && turn(tile, isOver));
}

function columns() {
  const top = tiles[0].offsetTop;
  return tiles.filter((tile) => tile.offsetTop === top).length;
}

addEventListener("keydown", (event) => {
  if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || !tiles.length) return;
  const at = tiles.indexOf(document.activeElement);
  if (event.key === " ") {
    if (event.target.closest("button")) return;
    event.preventDefault();
    if (at >= 0) turn(tiles[at], !tiles[at].classList.contains("turned"));
    else {
      isOver = !isOver;
      for (const tile of tiles) turn(tile, isOver);
    }
    return;
  }
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  if (step === undefined || (at < 0 && event.key.match(/Up|Down/))) return;
  event.preventDefault();
  tiles[Math.min(tiles.length - 1, Math.max(0, at < 0 ? 0 : at + step))].focus();
});
