"use strict";
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const bufferOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
// Of all images that have a score, in rising order; not all of them need have a thumbnail here.
const sorted = new Float64Array(bufferOf(data.uncertainties));
const total = sorted.length;
const count = data.path.length;
const uncertaintyOf = (i) => sorted[data.rank[i] - 1];
const labelOf = (i) => (data.label[i] < 0 ? "" : data.labels[data.label[i]]);
const searchable = data.path.map((path) => path.toLowerCase());
const number = (value) => value.toLocaleString("en-GB");
// As many decimals as tell images apart, however close together their uncertainties are.
const range = (sorted[sorted.length - 1] - sorted[0]) || 1;
const decimals = Math.min(12, Math.max(0, Math.ceil(2.3 - Math.log10(range))));
const short = (value) => value.toFixed(decimals);
let thumbnails = [];
let threshold = Infinity;
let shown = [];
let active = 0;

// How many of some uncertainties in rising order, of all images if not said, are at most `value`.
function countUpTo(value, values = sorted) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}

// The uncertainties of each label's images, in rising order; those of images without a label come last.
const members = [...data.labels, ""].map(() => []);
new Int32Array(bufferOf(data.labelOfRank)).forEach((label, rank) => members.at(label).push(sorted[rank]));
// What is rejected of each label: what is above the threshold, or the same share of every label.
const thresholds = members.map(() => Infinity);
const isRejected = (i) => uncertaintyOf(i) > thresholds.at(data.label[i]);

function divide() {
  const share = (total - countUpTo(threshold)) / total;
  members.forEach((values, label) => {
    const kept = values.length - Math.floor(share * values.length + 1e-9);
    thresholds[label] = byId("by-label").checked ? (kept ? values[kept - 1] : -Infinity) : threshold;
  });
}

// ---- which images are shown ----
function filter() {
  const text = byId("search").value.trim().toLowerCase();
  const label = Number(byId("label").value || -1);
  const which = byId("which").value;
  const before = shown[active];
  shown = [];
  for (let i = 0; i < count; i += 1) {
    if (text && !searchable[i].includes(text)) continue;
    if (label >= 0 && data.label[i] !== label) continue;
    if (which !== "all" && isRejected(i) !== (which === "rejected")) continue;
    shown.push(i);
  }
  if (byId("order").value === "down") shown.reverse();
  active = Math.max(0, shown.indexOf(before));
  byId("none").hidden = shown.length > 0;
  describe();
  lay();
}

// A row for each label, the most uncertain first; what is rejected of it is filled in by `describe`.
const rows = data.labels.map((label, index) => {
  const row = document.createElement("tr");
  const median = members[index][members[index].length >> 1];
  const rank = members[index].length ? (countUpTo(median) / total).toFixed(2) : "";
  for (const text of [label, number(members[index].length), rank, ""]) row.insertCell().textContent = text;
  return row;
});

function describe() {
  const rejectedOf = members.map((values, label) => values.length - countUpTo(thresholds[label], values));
  const rejected = rejectedOf.reduce((sum, images) => sum + images, 0);
  rows.forEach((row, label) => {
    row.lastElementChild.textContent =
      `${number(rejectedOf[label])} (${(100 * rejectedOf[label] / (members[label].length || 1)).toFixed(0)} %)`;
  });
  byId("rejects").innerHTML = `rejects <b></b>`;
  byId("rejects").firstElementChild.textContent = `${number(rejected)} of ${number(total)}`;
  byId("rejects").append(` images (${(100 * rejected / total).toFixed(1)} %)`);
  const inView = shown.filter(isRejected).length;
  const some = count < total ? `, of which ${number(count)}, evenly spread over the ranks, have a thumbnail` : "";
  byId("shown").textContent =
    `${number(shown.length)} of ${number(count)} images shown, ${number(inView)} of these rejected${some}`;
}

// ---- the grid: only the cells in sight exist ----
const CELL_WIDTH = 136, CELL_HEIGHT = 158, GAP = 4;
const grid = byId("grid"), canvas = byId("canvas");
const cells = new Map();
let columns = 1, width = CELL_WIDTH;

// As many columns as fit, which share what is left over.
function fit() {
  const fitting = Math.max(1, Math.floor((canvas.clientWidth + GAP) / CELL_WIDTH));
  return [fitting, Math.floor((canvas.clientWidth + GAP) / fitting)];
}

function lay() {
  [columns, width] = fit();
  canvas.style.height = `${Math.ceil(shown.length / columns) * CELL_HEIGHT}px`;
  for (const cell of cells.values()) cell.remove();
  cells.clear();
  paint();
}

function paint() {
  const first = Math.max(0, Math.floor((grid.scrollTop - CELL_HEIGHT) / CELL_HEIGHT)) * columns;
  const last = Math.min(shown.length, Math.ceil((grid.scrollTop + grid.clientHeight + CELL_HEIGHT) / CELL_HEIGHT) * columns);
  for (const [position, cell] of cells) {
    if (position < first || position >= last) { cell.remove(); cells.delete(position); }
  }
  for (let position = first; position < last; position += 1) {
    if (!cells.has(position)) { const cell = make(position); cells.set(position, cell); canvas.append(cell); }
  }
  mark();
}

function make(position) {
  const i = shown[position];
  const cell = document.createElement("div");
  cell.className = isRejected(i) ? "cell rejected" : "cell";
  cell.id = `cell-${position}`;
  cell.dataset.position = position;
  cell.setAttribute("role", "option");
  cell.setAttribute("aria-setsize", shown.length);
  cell.setAttribute("aria-posinset", position + 1);
  cell.setAttribute("aria-label", sentence(i));
  cell.title = data.path[i];
  cell.style.width = `${width - GAP}px`;
  cell.style.left = `${(position % columns) * width}px`;
  cell.style.top = `${Math.floor(position / columns) * CELL_HEIGHT}px`;
  const picture = document.createElement(thumbnails[i] ? "img" : "span");
  picture.className = "blank";
  if (thumbnails[i]) { picture.className = ""; picture.alt = ""; picture.decoding = "async"; picture.src = source(i); }
  const line = document.createElement("span");
  line.className = "u";
  const name = document.createElement("span"), value = document.createElement("span");
  name.className = "name";
  name.textContent = labelOf(i) || data.path[i].slice(data.path[i].lastIndexOf("/") + 1);
  value.className = "value";
  value.textContent = short(uncertaintyOf(i));
  line.append(name, value);
  cell.append(picture, line);
  return cell;
}

const source = (i) => `data:image/webp;base64,${thumbnails[i]}`;
const sentence = (i) =>
  `${data.path[i]}${labelOf(i) ? `, label ${labelOf(i)}` : ""}, uncertainty ${short(uncertaintyOf(i))}, ${isRejected(i) ? "rejected" : "kept"}`;

function mark() {
  for (const [position, cell] of cells) {
    cell.classList.toggle("active", position === active);
    cell.setAttribute("aria-selected", position === active);
  }
  if (cells.has(active)) grid.setAttribute("aria-activedescendant", `cell-${active}`);
  else grid.removeAttribute("aria-activedescendant");
}

function go(position) {
  if (!shown.length) return;
  active = Math.min(Math.max(position, 0), shown.length - 1);
  const top = Math.floor(active / columns) * CELL_HEIGHT + canvas.offsetTop;
  if (top < grid.scrollTop) grid.scrollTop = top - 8;
  else if (top + CELL_HEIGHT > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + CELL_HEIGHT - grid.clientHeight + 8;
  paint();
}

// ---- one image, large ----
const dialog = byId("dialog");

function open() {
  if (!shown.length) return;
  const i = shown[active];
  byId("large").src = thumbnails[i] ? source(i) : "";
  byId("large").alt = sentence(i);
  const facts = [
    ["path", data.path[i]],
    ["label", labelOf(i) || "none"],
    ["uncertainty u", `${uncertaintyOf(i).toFixed(decimals + 2)} (${isRejected(i) ? "rejected" : "kept"})`],
    ["rank", `${number(data.rank[i])} of ${number(total)}, 1 is the least uncertain`],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const term = document.createElement("dt"), definition = document.createElement("dd");
    term.textContent = name;
    definition.textContent = value;
    if (name === "path") {
      definition.id = "dialog-path";
      definition.replaceChildren(...original(i));
    }
    return [term, definition];
  }));
  byId("previous").disabled = active === 0;
  byId("next").disabled = active === shown.length - 1;
  if (!dialog.open) dialog.showModal();
}

// The path of an image, which opens its file where it has one.
function original(i) {
  if (!data.file[i]) return [data.path[i]];
  const link = document.createElement("a");
  Object.assign(link, { href: data.file[i], target: "_blank", rel: "noopener", title: "open the original image" });
  link.textContent = data.path[i];
  return [link];
}

// ---- the threshold ----
const BARS = 80;
const lowest = sorted[0];
const edgeOf = (bar) => lowest + (range * bar) / BARS;

function drawHistogram() {
  const histogram = byId("histogram");
  histogram.setAttribute("viewBox", `0 0 ${BARS} 1`);
  const counts = [];
  for (let bar = 0; bar < BARS; bar += 1) {
    counts.push((bar === BARS - 1 ? total : countUpTo(edgeOf(bar + 1))) - (bar === 0 ? 0 : countUpTo(edgeOf(bar))));
  }
  const most = Math.max(...counts);
  histogram.replaceChildren(...counts.map((images, bar) => {
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = images ? Math.max(0.02, images / most) : 0;
    for (const [name, value] of Object.entries({ x: bar + 0.06, y: 1 - height, width: 0.88, height })) box.setAttribute(name, value);
    return box;
  }));
}

// The threshold at a position of the slider, rounded to what the field shows; upwards, so that the right end rejects nothing.
function ofSlider(value) {
  const exact = value === 1000 ? sorted[total - 1] : lowest + (range * value) / 1000;
  const unit = 10 ** Math.floor(Math.log10(range) - 3);
  return Number((Math.ceil(exact / unit) * unit).toPrecision(12));
}

function setThreshold(value, mover) {
  threshold = value;
  divide();
  if (mover !== "slider") byId("slider").value = Math.round((1000 * (value - lowest)) / range);
  if (mover !== "threshold") byId("threshold").value = value;
  byId("slider").setAttribute("aria-valuetext", `u above ${value} is rejected`);
  [...byId("histogram").children].forEach((box, bar) => {
    box.setAttribute("class", edgeOf(bar + 0.5) > threshold ? "rejected" : "kept");
  });
  if (byId("which").value !== "all") { filter(); return; }
  describe();
  for (const [position, cell] of cells) {
    cell.classList.toggle("rejected", isRejected(shown[position]));
    cell.setAttribute("aria-label", sentence(shown[position]));
  }
}

// ---- wiring ----
function save() {
  const kept = data.path.filter((path, i) => !isRejected(i)).sort();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([kept.map((path) => `${path}\n`).join("")], { type: "text/plain" }));
  link.download = "kept.txt";
  link.click();
  URL.revokeObjectURL(link.href);
}

const moves = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: () => columns, ArrowUp: () => -columns,
  PageDown: () => columns * Math.max(1, Math.floor(grid.clientHeight / CELL_HEIGHT)),
  PageUp: () => -columns * Math.max(1, Math.floor(grid.clientHeight / CELL_HEIGHT)) };

// Wherever the focus is, but in what has keys of its own: the page is to be looked through at once.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || dialog.open) return;
  if (event.target.closest?.("input, select, button, summary")) return;
  if (event.key in moves) go(active + moves[event.key]());
  else if (event.key === "Home") go(0);
  else if (event.key === "End") go(shown.length - 1);
  else if (event.key === "Enter" || event.key === " ") open();
  else return;
  event.preventDefault();
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); go(active + step); open(); }
});
dialog.addEventListener("close", () => grid.focus());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
canvas.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) { go(Number(cell.dataset.position)); open(); }
});
byId("previous").addEventListener("click", () => { go(active - 1); open(); });
byId("next").addEventListener("click", () => { go(active + 1); open(); });
byId("close").addEventListener("click", () => dialog.close());
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", filter);
for (const id of ["label", "which", "order"]) byId(id).addEventListener("change", filter);
byId("slider").addEventListener("input", () => setThreshold(ofSlider(Number(byId("slider").value)), "slider"));
byId("threshold").addEventListener("input", () => {
  if (byId("threshold").value !== "") setThreshold(Number(byId("threshold").value), "threshold");
});
byId("by-label").addEventListener("change", () => { divide(); filter(); });
byId("save").addEventListener("click", save);
grid.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
new ResizeObserver(() => { if (fit()[1] !== width) { lay(); go(active); } else paint(); }).observe(grid);

// ---- the page as it opens ----
if (data.labels.length) {
  const counts = new Map();
  for (const index of data.label) counts.set(index, (counts.get(index) || 0) + 1);
  byId("labels").hidden = false;
  const rankOf = (row) => -Number(row.cells[2].textContent);
  byId("labels").querySelector("tbody").append(...[...rows].sort((a, b) => rankOf(a) - rankOf(b)));
  byId("label").append(new Option("all labels", -1),
    ...data.labels.map((label, index) => new Option(`${label} (${number(counts.get(index) || 0)})`, index)));
} else {
  byId("label-field").hidden = byId("by-label-field").hidden = true;
}
if (data.unreadableCount) {
  byId("unreadable").hidden = false;
  byId("unreadable").firstElementChild.textContent =
    data.unreadableCount === 1 ? "1 image could not be read" : `${number(data.unreadableCount)} images could not be read`;
  byId("unreadable").lastElementChild.append(...data.unreadable.map(([path, error]) => {
    const item = document.createElement("li");
    item.textContent = error.includes(path) ? error : `${path}: ${error}`;
    return item;
  }));
}
byId("save").hidden = count < total;
byId("slider").value = 1000;
drawHistogram();
filter();
setThreshold(ofSlider(1000), "slider");
grid.focus({ preventScroll: true });
