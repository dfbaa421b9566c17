#include "run/report_page.hpp"

namespace konclave {

std::string_view report_script() {
  return R"js(
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const parts = document.getElementById("parts"), tip = document.getElementById("tip");
const drawn = [];  // what is drawn again when the width or the colours change

function make(tag, attributes, ...inside) {
  const svg = ["svg", "title", "path", "line", "text", "circle"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- numbers as text
function short(value) {
  const size = Math.abs(value);
  if (size > 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(2).replace("e+", "e").replace(/\.?0+e/, "e");
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= 10 * unit || (size >= unit && unit > 1e3)) return Number((value / unit).toPrecision(3)) + letter;
  }
  return String(Number(value.toPrecision(4)));
}
const count = value => value.toLocaleString("en-US");
function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return Number(value.toPrecision(3)) + " " + units[unit];
}
const time = seconds => seconds >= 1 ? short(seconds) + " s" : short(seconds * 1e3) + " ms";

// ---- the note at the pointer
function show(event, text) {
  tip.textContent = text;
  tip.style.display = "block";
  const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4);
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
}
const hide = () => { tip.style.display = "none"; };

// ---- curves
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough);
  const list = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) list.push(Number(at.toPrecision(12)));
  return list;
}
function powers(low, high) {
  const list = [];
  for (let at = Math.ceil(Math.log10(low) - 1e-9); at <= Math.log10(high) + 1e-9; ++at) list.push(10 ** at);
  if (list.length >= 2) return list.length <= 8 ? list : list.filter((_, n) => n % Math.ceil(list.length / 6) === 0);
  return [1, 2, 3, 5, 7].flatMap(n => [-1, 0].map(e => n * 10 ** (Math.floor(Math.log10(high)) + e)))
    .filter(n => n >= low && n <= high).sort((a, b) => a - b);
}
function chart(title, names, options = {}) {
  const series = names.filter(([key]) => data.curves[key]).map(([key, label, shade]) => ({...data.curves[key], label, shade}));
  if (!series.length) return null;
  const all = series.flatMap(s => s.value), text = options.text || short;
  let low = Math.min(...all), high = Math.max(...all);
  const log = options.log && low > 0 && high / low > 10;
  if (options.zero && !log) low = Math.min(0, low);
  if (low === high) { const pad = Math.abs(low) * .1 || 1; low -= options.zero ? 0 : pad; high += pad; }
  const scale = log ? Math.log10 : value => value;
  const edge = (scale(high) - scale(low)) * .04, bottom = scale(low) - (low === 0 ? 0 : edge), top = scale(high) + edge;
  const first = Math.min(...series.map(s => s.step[0])), last = Math.max(...series.map(s => s.step[s.step.length - 1]));
  const legend = make("span", {class: "legend"});
  for (const s of series) {
    if (series.length > 1) {
      const key = make("span", {class: "key"});
      key.style.background = `var(${s.shade})`;
      legend.append(key);
    }
    legend.append((series.length > 1 ? s.label + " " : "last ") + text(s.value[s.value.length - 1]));
  }
  const box = make("div", {});
  const figure = make("figure", {}, make("figcaption", {}, make("span", {}, title + (log ? ", log scale" : "")), legend), box);
  drawn.push(() => {
    const width = Math.max(box.clientWidth, 240), height = options.height || 210, left = 52, right = 10, under = 22;
    const x = step => left + (width - left - right) * (last > first ? (step - first) / (last - first) : .5);
    const y = value => 6 + (height - under - 6) * (1 - (scale(value) - bottom) / (top - bottom));
    const summary = series.map(s => `${s.label}: ${text(s.value[0])} at step ${s.step[0]}, ${text(s.value[s.value.length - 1])} at step ${s.step[s.step.length - 1]}`).join("; ");
    const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title + ". " + summary}, make("title", {}, title));
    for (const at of log ? powers(10 ** bottom, 10 ** top) : ticks(bottom, top, 5)) {
      if (at < (log ? 10 ** bottom : bottom)) continue;
      svg.append(make("line", {class: "rule", x1: left, x2: width - right, y1: y(at), y2: y(at)}),
                 make("text", {x: left - 6, y: y(at) + 4, "text-anchor": "end"}, text(at)));
    }
    for (const at of last > first ? ticks(first, last, width / 110).filter(Number.isInteger) : [first]) {
      svg.append(make("text", {x: x(at), y: height - 6, "text-anchor": x(at) > width - 30 ? "end" : "middle"}, count(at)));
    }
    for (const s of series) {
      const path = s.step.map((step, n) => `${n ? "L" : "M"}${x(step).toFixed(1)} ${y(s.value[n]).toFixed(1)}`).join("");
      svg.append(make("path", {d: path, fill: "none", stroke: `var(${s.shade})`, "stroke-width": 1.5, "stroke-linejoin": "round"}));
      if (s.step.length <= 30) for (let n = 0; n < s.step.length; ++n) svg.append(make("circle", {cx: x(s.step[n]), cy: y(s.value[n]), r: 2.5, fill: `var(${s.shade})`}));
    }
    const cursor = make("line", {class: "rule", y1: 6, y2: height - under, visibility: "hidden"});
    svg.append(cursor);
    svg.onpointermove = event => {
      const frame = svg.getBoundingClientRect(), at = first + (last - first) * ((event.clientX - frame.left) * width / frame.width - left) / (width - left - right);
      const near = s => s.step.reduce((best, step, n) => Math.abs(step - at) < Math.abs(s.step[best] - at) ? n : best, 0);
      const step = series[0].step[near(series[0])];
      cursor.setAttribute("x1", x(step)); cursor.setAttribute("x2", x(step)); cursor.setAttribute("visibility", "visible");
      show(event, series.map(s => { const n = near(s); return `step ${count(s.step[n])}: ${s.label} ${text(s.value[n])}`; }).join(", "));
    };
    svg.onpointerleave = () => { hide(); cursor.setAttribute("visibility", "hidden"); };
    box.replaceChildren(svg);
  });
  return figure;
}

// ---- heat maps
const channels = name => colour(name).match(/[0-9a-f]{2}/gi).map(hex => parseInt(hex, 16));
const mixed = (from, to, part) => from.map((value, n) => value + (to[n] - value) * part);
// Shades of -1 to 1 around the middle.
function shades() {
  const low = channels("--heat-low"), middle = channels("--heat-middle"), high = channels("--heat-high");
  return part => part < 0 ? mixed(middle, low, Math.min(1, -part)) : mixed(middle, high, Math.min(1, part));
}
// cells: rows of numbers; part(value) in -1..1; note(row, column) is the text at the pointer.
function heat(title, cells, part, note, axis, scale, rowHeight) {
  const canvas = make("canvas", {role: "img", "aria-label": title + ". " + scale.text, width: cells[0].length, height: cells.length});
  canvas.style.height = Math.max(24, Math.min(320, cells.length * rowHeight)) + "px";
  const bar = make("span", {class: "scale"});
  const colours = {both: ["low", "middle", "high"], cold: ["middle", "low"], warm: ["middle", "high"]}[scale.kind];
  bar.style.background = `linear-gradient(90deg, ${colours.map(name => `var(--heat-${name})`).join(", ")})`;
  const figure = make("figure", {}, make("figcaption", {}, make("span", {}, title), make("span", {class: "legend"}, scale.low, bar, scale.high)),
    canvas, make("div", {class: "axis"}, ...axis.map(text => make("span", {}, text))));
  drawn.push(() => {
    const shade = shades(), context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    cells.forEach((row, r) => row.forEach((value, c) => image.data.set([...shade(part(value)), 255], 4 * (r * canvas.width + c))));
    context.putImageData(image, 0, 0);
  });
  canvas.onpointermove = event => {
    const frame = canvas.getBoundingClientRect();
    const pick = (at, size, cells) => Math.max(0, Math.min(cells - 1, Math.floor(at / size * cells)));
    show(event, note(pick(event.clientY - frame.top, frame.height, canvas.height), pick(event.clientX - frame.left, frame.width, canvas.width)));
  };
  canvas.onpointerleave = hide;
  return figure;
}

// ---- the page
function section(title, kind, figures, lead) {
  const shown = figures.filter(Boolean);
  if (!shown.length) return;
  parts.append(make("h2", {}, title));
  if (lead) parts.append(make("p", {class: "sub"}, lead));
  parts.append(make("div", {class: kind}, ...shown));
}
function bars(title, rows, text) {
  if (!rows.length) return null;
  const most = Math.max(...rows.map(row => row[1])) || 1, sum = rows.reduce((all, row) => all + row[1], 0);
  const list = make("div", {class: "bars"});
  for (const [name, value] of rows) {
    const bar = make("i", {});
    bar.style.width = 100 * value / most + "%";
    list.append(make("div", {}, make("span", {}, name), make("span", {}, bar), make("em", {}, text(value))));
  }
  return make("figure", {}, make("figcaption", {}, make("span", {}, title), make("span", {class: "legend"}, "together " + text(sum))), list);
}
// Those below a two-hundredth of the whole together.
function mainPhases(rows) {
  const sum = rows.reduce((all, row) => all + row[1], 0), small = rows.filter(row => row[1] < sum / 200);
  const list = rows.filter(row => row[1] >= sum / 200);
  return small.length ? [...list, ["all that is less", small.reduce((all, row) => all + row[1], 0)]] : list;
}
function experts() {
  const routing = data.routing;
  if (!routing) return;
  const columns = routing.columns, last = columns[columns.length - 1][1], layers = routing.layers;
  const steps = c => columns[c][0] === columns[c][1] ? `step ${count(columns[c][0])}` : `steps ${count(columns[c][0])} to ${count(columns[c][1])}`;
  const axis = ["step " + count(columns[0][0]), count(last)];
  const fair = {low: "a third", high: "3 times", kind: "both", text: "Load of each expert; 1 is a fair share, blue is less, red is more."};
  const share = value => value > 0 ? Math.log(value) / Math.log(3) : -1;
  const transposed = rows => rows[0].map((_, n) => rows.map(row => row[n]));
  const over = (title, name, least, most, kind = "warm") => {
    const cells = routing[name], high = Math.max(most, ...cells.map(row => Math.max(...row)));
    return heat(title, cells, value => (kind === "cold" ? -1 : 1) * (value - least) / (high - least), (r, c) => `layer ${layers[r]}, ${steps(c)}: ${short(cells[r][c])}`,
      axis, {low: short(least), high: short(high), kind, text: "A row for each MoE layer, over the steps."}, 20);
  };
  const known = rows => rows.some(row => row.some(value => value > 0));
  const from = routing.final_steps[0], when = from === last ? `step ${count(last)}` : `steps ${count(from)} to ${count(last)}`;
  section("Experts: all layers", "grid", [
    heat("Load at the end, layers by experts", routing.final, share, (r, c) => `layer ${layers[r]}, expert ${c}: ${short(routing.final[r][c])} of a fair share in ${when}`,
      ["expert 0", String(routing.experts - 1)], fair, 20),
    over("Load imbalance by layer", "imbalance", 1, 1.5),
    known(routing.entropy) ? over("Entropy of the scores by layer, nats", "entropy", 0, Math.log(routing.experts), "cold") : null,
    known(routing.dropped) ? over("Dropped share by layer", "dropped", 0, 0) : null],
    `${layers.length} MoE layer${layers.length > 1 ? "s" : ""} with ${routing.experts} experts; the first layer is on top. 1 is a fair share of a layer's tokens, an imbalance of 1 a perfect balance.`);
  const sampled = columns.some(column => column[2] < column[1] - column[0] + 1);
  section("Experts: load over the steps", "maps", layers.map((number, n) =>
    heat("Layer " + number, transposed(routing.load[n]), share, (r, c) => `layer ${number}, expert ${r}, ${steps(c)}: ${short(routing.load[n][c][r])} of a fair share`,
      axis, fair, Math.max(2, Math.min(14, 180 / routing.experts)))),
    "A row for each expert, expert 0 on top." + (sampled ? " The run is long: each column shows some of its steps." : ""));
}
function page() {
  document.getElementById("name").textContent = data.name;
  const done = data.steps >= data.wanted_steps;
  document.getElementById("state").textContent = done ? "Run of Konclave, complete" : `Run of Konclave, at step ${count(data.steps)} of ${count(data.wanted_steps)}`;
  for (const text of data.remarks) document.getElementById("remarks").append(make("p", {class: "remark"}, text));
  for (const [name, text] of data.facts[0][1]) document.getElementById("tiles").append(make("div", {class: "tile"}, make("span", {}, name), make("b", {}, text)));
  const one = "--first", two = "--second", some = key => data.curves[key] && data.curves[key].value.some(value => value > 0);
  section("Training", "grid", [
    chart("Loss", [["loss", "training", one], ["val_loss", "validation", two]]),
    chart("Gradient norm", [["grad_norm", "gradient norm", one]], {log: true}),
    chart("Learning rate", [["lr", "learning rate", one]], {zero: true}),
    some("aux_loss") || some("z_loss") ? chart("Auxiliary losses", [["aux_loss", "auxiliary", one], ["z_loss", "z-loss", two]].filter(row => some(row[0])), {log: true}) : null,
    data.routing || some("dropped_fraction") ? chart("Load imbalance, mean of the layers", [["load_imbalance", "imbalance", one]]) : null,
    some("dropped_fraction") ? chart("Dropped share", [["dropped_fraction", "dropped", two]], {zero: true}) : null]);
  experts();
  section("Speed and memory", "grid", [
    chart("Time of a step", [["seconds", "step", one]], {log: true, text: time, zero: true}),
    chart("Tokens per second", [["tokens_per_second", "tokens per second", one]], {zero: true}),
    bars("Memory by class, peak of a rank", data.memory, bytes)]);
  const phases = mainPhases(data.phases);
  if (phases.length) parts.append(make("div", {class: "below"}, bars("What a step is made of, mean of the traced steps and the ranks", phases, time)));
  section("The run", "facts", data.facts.map(([name, rows]) =>
    make("section", {}, make("h3", {}, name), make("table", {}, make("tbody", {}, ...rows.map(([key, text]) => make("tr", {}, make("th", {scope: "row"}, key), make("td", {}, text))))))));
  parts.append(make("h2", {}, "Deck"), make("details", {}, make("summary", {}, "deck.toml, with the origin of each value"), make("pre", {}, data.deck)));
}
page();
const draw = () => drawn.forEach(one => one());
draw();
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
)js";
}

}  // namespace konclave
