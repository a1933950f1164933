"use strict";
// ---- charts: made when they come into view, in the colours of the reader's scheme
const dark = matchMedia("(prefers-color-scheme: dark)");
const items = new Map();
async function show(box) {
  if (!items.has(box)) items.set(box, box.querySelector("script").textContent);
  box.dataset.scheme = dark.matches ? "dark" : "light";
  let text = items.get(box);
  if (dark.matches) text = text.replaceAll("#1f2328", "#e6e9ec").replaceAll("#d5d9de", "#3a4149");
  box.replaceChildren();
  box.dataset.drawn = "";
  await Bokeh.embed.embed_item(JSON.parse(text), box);
  box.dataset.drawn = "yes";
}
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); show(entry.target); }
}, { rootMargin: "300px" });
const charts = [...document.querySelectorAll(".chart")];
charts.forEach((box) => watcher.observe(box));
dark.addEventListener("change", () => charts.filter((box) => box.dataset.scheme).forEach(show));
addEventListener("beforeprint", () => charts.filter((box) => !box.dataset.scheme && !box.closest("details")).forEach(show));

// ---- the claims: sort and filter
const table = document.getElementById("claims-table");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const order = (a, b) => key(a, column).localeCompare(key(b, column), "en", { numeric: true }) * (up ? 1 : -1);
  body.append(...[...body.rows].sort(order));
}));
const chosen = { verdict: document.getElementById("by-verdict"), scale: document.getElementById("by-scale") };
function filter() {
  let count = 0;
  for (const row of body.rows) {
    row.hidden = Object.entries(chosen).some(([name, select]) => select.value && row.dataset[name] !== select.value);
    count += !row.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${body.rows.length} claims`;
}
Object.values(chosen).forEach((select) => select.addEventListener("change", filter));
filter();

// ---- records, kept compressed in the page
for (const button of document.querySelectorAll(".download")) button.addEventListener("click", async () => {
  const bytes = Uint8Array.from(atob(button.dataset.gz), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await new Response(stream).blob());
  link.download = button.dataset.name;
  link.click();
  URL.revokeObjectURL(link.href);
});
