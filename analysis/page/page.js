"use strict";
// ---- charts: made when they come into view, in the colours of the reader's scheme
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 800px)");
const plots = new Map();
function unpack(data) { // what panels.py packed
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}
const loaded = unpack(document.getElementById("bokeh").textContent).text().then((source) => {
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
});
async function show(box) {
  await loaded;
  box.dataset.scheme = dark.matches ? "dark" : "light";
  let text = await unpack(box.dataset.gz).text();
  if (dark.matches) text = text.replaceAll("#1f2328", "#e6e9ec").replaceAll("#d5d9de", "#3a4149");
  box.replaceChildren();
  box.dataset.drawn = "";
  const views = await Bokeh.embed.embed_item(JSON.parse(text), box);
  const plot = [...views][0];
  plots.set(box, plot);
  plot.model.height = parseInt(getComputedStyle(box).minHeight);
  box.dataset.drawn = "yes";
}
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); show(entry.target); }
}, { rootMargin: "300px" });
const charts = [...document.querySelectorAll(".chart")];
charts.forEach((box) => watcher.observe(box));
dark.addEventListener("change", () => charts.filter((box) => box.dataset.scheme).forEach(show));
addEventListener("beforeprint", () => charts.filter((box) => !box.dataset.scheme && !box.closest("details")).forEach(show));

// ---- values under a pointer, a finger or the arrow keys
const short = (number) => Math.abs(number) >= 1e4 ? Math.round(number).toLocaleString("en") : String(Number(number.toPrecision(4)));
function points(plot) {
  const found = [];
  for (const renderer of plot.model.renderers) {
    const data = renderer.data_source?.data ?? {};
    const column = (name) => [...((data instanceof Map ? data.get(name) : data[name]) ?? [])];
    const [x, y, error, value] = ["x", "y", "error", "value"].map(column), group = column("group");
    x.forEach((at, i) => {
      if (renderer.name || value.length) found.push({ name: renderer.name, x: at, y: y[i], error: error[i], value: value[i], group: group[i] });
    });
  }
  return found.filter((point) => Number.isFinite(point.y));
}
function place(plot) { // from values to pixels of the chart
  const { left, top, width, height } = plot.frame.bbox, { x_range, y_range, x_scale } = plot.model;
  const by = x_scale.type === "LogScale" ? Math.log : (x) => x;
  return { top, height,
    x: (at) => left + width * (by(at) - by(x_range.start)) / (by(x_range.end) - by(x_range.start)),
    y: (at) => top + height * (y_range.end - at) / (y_range.end - y_range.start) };
}
function nearest(list, distance) { return list.reduce((best, item) => distance(item) < distance(best) ? item : best); }
function rows(plot) { // of a strip of dots: places and names
  const names = plot.model.left[0].major_label_overrides;
  const pairs = names instanceof Map ? [...names] : Object.entries(names);
  return pairs.map(([at, name]) => ({ y: Number(at), name: name.replaceAll("\n", " ") }));
}
function strip(plot, row) { // mean, interval and single runs of a row
  const here = { means: [], runs: [] };
  for (const renderer of plot.model.renderers) {
    const data = renderer.data_source?.data ?? {};
    const column = (name) => [...((data instanceof Map ? data.get(name) : data[name]) ?? [])];
    const [x, y, error, fill] = ["x", "y", "error", "fill"].map(column);
    x.forEach((at, i) => {
      if (Math.abs(y[i] - row.y) > 0.45 || !Number.isFinite(at)) return;
      if (fill.length) here.runs.push(fill[i] === null ? `(${short(at)})` : short(at));
      else if (error.length) here.means.push(`mean: ${short(at)}${error[i] > 0 ? ` \u00b1 ${short(error[i])}` : ""}`);
    });
  }
  return [row.name, ...here.means, here.runs.length ? `runs: ${here.runs.join(", ")}` : ""].filter(Boolean).join("\n");
}
function reading(plot, near, strips) { // what to say of the place nearest to (x, y) in pixels, and where it is
  const all = points(plot), to = place(plot);
  if (strips) {
    const row = nearest(rows(plot), (r) => Math.abs(to.y(r.y) - near.y));
    return { at: to.x(0), text: strip(plot, row), to };
  }
  if (!all.length) return null;
  const words = (p) => `${p.name}: ${short(p.y)}${p.error > 0 ? ` \u00b1 ${short(p.error)}` : ""}`;
  const plane = all.some((p) => p.value !== undefined) || plot.model.renderers.some((r) => r.type === "ContourRenderer");
  if (plane) {
    const p = nearest(all, (q) => Math.hypot(to.x(q.x) - near.x, to.y(q.y) - near.y));
    const text = p.value === undefined ? `${p.name}\n${short(p.x)}, ${short(p.y)}` : `row ${p.y}, column ${p.x}: ${short(p.value)}`;
    return { at: to.x(p.x), text, to };
  }
  const closest = nearest(all, (q) => Math.abs(to.x(q.x) - near.x));
  if (all.some((p) => p.group !== undefined)) {
    const same = all.filter((p) => Math.round(p.x) === Math.round(closest.x));
    return { at: to.x(Math.round(closest.x)), text: [same.find((p) => p.group)?.group, ...same.map(words)].join("\n"), to };
  }
  const axis = plot.model.below[0].axis_label || "at";
  const names = [...new Set(all.map((p) => p.name))];
  const lines = names.map((name) => nearest(all.filter((p) => p.name === name), (q) => Math.abs(to.x(q.x) - near.x)));
  const here = lines.filter((p) => Math.abs(to.x(p.x) - to.x(closest.x)) < 12);
  return { at: to.x(closest.x), text: [`${axis.replaceAll("\n", " ")}: ${short(closest.x)}`, ...here.map(words)].join("\n"), to };
}
for (const box of charts) {
  const tip = box.parentElement.querySelector(".tip"), line = box.parentElement.querySelector(".at");
  const hide = () => { tip.hidden = line.hidden = true; };
  let stop = 0; // which place the arrow keys read
  const say = (near) => {
    const said = plots.has(box) && reading(plots.get(box), near, "strip" in box.dataset);
    if (!said) return;
    tip.textContent = said.text;
    tip.hidden = line.hidden = false;
    const room = box.clientWidth - tip.offsetWidth;
    const aside = said.at + 12 <= room ? said.at + 12 : Math.max(0, said.at - 12 - tip.offsetWidth);
    tip.style.left = `${narrow.matches ? 0 : aside}px`;
    tip.style.top = `${narrow.matches ? box.clientHeight : said.to.top + 4}px`; // where it is narrow, under the chart
    Object.assign(line.style, { left: `${said.at}px`, top: `${said.to.top}px`, height: `${said.to.height}px` });
  };
  const follow = (event) => {
    const { left, top } = box.getBoundingClientRect();
    say({ x: event.clientX - left, y: event.clientY - top });
  };
  box.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") follow(event); }, true);
  box.addEventListener("click", follow, true);
  box.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    if (!["ArrowLeft", "ArrowRight"].includes(event.key) || !plots.has(box)) return;
    event.preventDefault();
    const to = place(plots.get(box)), all = points(plots.get(box)), bars = all.some((p) => p.group !== undefined);
    const seen = new Map(all.map((p) => [bars ? Math.round(p.x) : p.value === undefined ? p.x : `${p.x} ${p.y}`, p]));
    const places = "strip" in box.dataset ? rows(plots.get(box)).map(({ y }) => ({ x: 0, y })) : [...seen.values()].sort((a, b) => a.x - b.x || a.y - b.y);
    stop = tip.hidden ? 0 : Math.min(places.length - 1, Math.max(0, stop + (event.key === "ArrowRight" ? 1 : -1)));
    if (places.length) say({ x: to.x(bars ? Math.round(places[stop].x) : places[stop].x), y: to.y(places[stop].y) });
  });
}

// ---- the claims: sort, filter, and open what the address names
const table = document.getElementById("claims-table");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
const key = (row, column) => row.cells[column].dataset.key;
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
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
function open() {
  const named = document.getElementById(location.hash.slice(1));
  const details = named?.matches("details") ? named : named?.matches("tr") && named.querySelector("details");
  if (details) details.open = true;
}
addEventListener("hashchange", open);
open();

// ---- records, kept compressed in the page
for (const button of document.querySelectorAll(".download")) button.addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await unpack(button.dataset.gz).blob());
  link.download = button.dataset.name;
  link.click();
  URL.revokeObjectURL(link.href);
});
