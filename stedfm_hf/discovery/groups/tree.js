"use strict";
// Shows the tree, the map and the selected node of the page; the data are in the element #data.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.nodes.map((node) => [node.id, node]));
const root = data.nodes[0];
const GREY = "#9aa5b1";
let column = data.columns.find((each) => each.name === data.condition) || data.columns[0] || null;
let selected = root;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "circle", "text", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A scale from dark blue to yellow for numbers, readable in light and dark.
function scale(value, [low, high]) {
  const stops = [[48, 60, 140], [35, 140, 141], [94, 201, 98], [240, 210, 40]];
  const at = Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(at), stops.length - 2);
  const mixed = stops[first].map((each, i) => Math.round(each + (stops[first + 1][i] - each) * (at - first)));
  return `rgb(${mixed.join(",")})`;
}

// Parts of a node in the current colours: [fraction, colour].
function parts(node) {
  if (!column) return [[1, GREY]];
  if (column.kind === "number") {
    const mean = node.means[column.name];
    return [[1, mean === null ? GREY : scale(mean, column.limits)]];
  }
  const counts = node.counts[column.name];
  return counts.map((count, i) => [count / node.items, column.categories[i].colour]).filter(([part]) => part > 0);
}

function wedge(radius, start, end) {
  const point = (turn) => [radius * Math.sin(2 * Math.PI * turn), -radius * Math.cos(2 * Math.PI * turn)].map((v) => v.toFixed(2));
  return `M0 0 L${point(start).join(" ")} A${radius} ${radius} 0 ${end - start > 0.5 ? 1 : 0} 1 ${point(end).join(" ")} Z`;
}

function drawTree() {
  const svg = document.getElementById("tree");
  const dx = 150, dy = 74, left = 60, top = 44;
  const place = (node) => [left + node.x * dx, top + node.y * dy];
  const width = 2 * left + 40 + dx * Math.max(...data.nodes.map((node) => node.x));
  const height = top + 50 + dy * Math.max(...data.nodes.map((node) => node.y));
  svg.replaceChildren();
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) svg.setAttribute(name, value);
  for (const node of data.nodes) {
    const [x, y] = place(node);
    for (const child of node.children) {
      const [cx, cy] = place(byId.get(child));
      const middle = (x + cx) / 2;
      svg.append(make("path", { class: "link", d: `M${x} ${y} C${middle} ${y} ${middle} ${cy} ${cx} ${cy}` }));
    }
  }
  for (const node of data.nodes) {
    const [x, y] = place(node);
    const radius = 28 * Math.max(0.35, Math.sqrt(node.items / root.items));
    const group = make("g", {
      role: "treeitem", tabindex: node === selected ? 0 : -1, "aria-selected": node === selected,
      "aria-level": node.x + 1, "aria-label": `Node ${node.id}, ${node.items} images`, transform: `translate(${x} ${y})`, "data-id": node.id,
    });
    let start = 0;
    for (const [part, colour] of parts(node)) {
      group.append(part > 0.9999 ? make("circle", { r: radius, fill: colour }) : make("path", { d: wedge(radius, start, start + part), fill: colour }));
      start += part;
    }
    group.append(make("circle", { class: "ring", r: radius + 3 }));
    group.append(make("text", { y: radius + 16, "text-anchor": "middle" }, `${node.id}: ${node.items}`));
    group.addEventListener("click", () => select(node, true));
    group.addEventListener("keydown", (event) => move(event, node));
    svg.append(group);
  }
}

function move(event, node) {
  const parent = byId.get(node.id.split(".").slice(0, -1).join("."));
  const siblings = parent ? parent.children : [node.id];
  const at = siblings.indexOf(node.id);
  const target = {
    ArrowLeft: parent, ArrowRight: byId.get(node.children[0]),
    ArrowUp: byId.get(siblings[at - 1]), ArrowDown: byId.get(siblings[at + 1]), Enter: node, " ": node,
  }[event.key];
  if (!target) return;
  event.preventDefault();
  select(target, true);
}

function drawMap() {
  const canvas = document.getElementById("map");
  const context = canvas.getContext("2d");
  const { x, y, leaf, values, total, name } = data.map;
  document.getElementById("mapname").textContent =
    `Map (${name})` + (x.length < total ? `: ${x.length.toLocaleString()} of ${total.toLocaleString()} images` : "");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const inside = (i) => data.nodes[leaf[i]].id === selected.id || data.nodes[leaf[i]].id.startsWith(`${selected.id}.`);
  const colour = (i) => {
    if (!column) return GREY;
    const value = values[column.name][i];
    if (column.kind === "category") return column.categories[value].colour;
    return value === null ? GREY : scale(value, column.limits);
  };
  for (const chosen of [false, true]) {
    for (let i = 0; i < x.length; i++) {
      if (inside(i) !== chosen) continue;
      context.globalAlpha = chosen ? 0.9 : 0.15;
      context.fillStyle = chosen ? colour(i) : GREY;
      context.beginPath();
      context.arc(20 + x[i] * (canvas.width - 40), canvas.height - 20 - y[i] * (canvas.height - 40), x.length > 1500 ? 4 : 6, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}

function drawLegend() {
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  if (!column) return;
  const entries = column.kind === "category" ? column.categories
    : [column.limits[0], (column.limits[0] + column.limits[1]) / 2, column.limits[1]].map((value) => ({ name: short(value), colour: scale(value, column.limits) }));
  for (const { name, colour } of entries) legend.append(make("span", {}, make("i", { style: `background:${colour}` }), name));
}

const short = (value) => value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString();
const percent = (value) => `${(100 * value).toFixed(0)} %`;

function table(header, rows) {
  const head = make("thead", {}, make("tr", {}, ...header.map((each) => make("th", { scope: "col" }, each))));
  const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((each) => make("td", {}, each)))));
  return make("div", { class: "wide" }, make("table", {}, head, body));
}

function drawDetails() {
  const details = document.getElementById("details");
  const node = selected;
  const stable = node === root || node.stability === null ? "" : `, mean stability of the assignment ${node.stability.toFixed(2)}`;
  details.replaceChildren(
    make("h2", {}, `Node ${node.id}`),
    make("p", {}, `${node.items.toLocaleString()} images of ${node.sources.toLocaleString()} source images${stable}.`),
    ...node.evidence.text.map((each) => make("p", {}, each)),
  );
  if (node.evidence.profile.length) details.append(profile(node.evidence.profile));
  if (column && column.kind === "category") {
    const counts = node.counts[column.name], all = root.counts[column.name];
    const rows = column.categories.map(({ name }, i) => [name, counts[i].toLocaleString(), percent(counts[i] / node.items), percent(all[i] / root.items)]);
    details.append(make("h3", {}, `Composition: ${column.name}`), table(["", "images", "fraction", "in all images"], rows));
  }
  if (node.tests.length) {
    const rows = node.tests.map((each) => [each.condition, percent(each.fraction), percent(each.other_fraction), short(each.p_corrected)]);
    details.append(
      make("h3", {}, `Enrichment: ${data.condition}`),
      make("p", { class: "legend" }, "Mean fraction of the images of a source image that are in this node; p is corrected for all nodes."),
      table(["", "with it", "others", "p"], rows));
  }
  if (node.differences.length) {
    const rows = node.differences.map((each) => [each.feature, short(each.mean), short(each.other_mean), short(each.effect_size)]);
    details.append(make("h3", {}, "Differences from the sibling nodes"), table(["", "mean here", "siblings", "effect size (SD)"], rows));
  }
  details.append(make("h3", {}, "Images nearest to the mean of the node"));
  const images = node.examples.map((row) => {
    const { uri, name } = data.images[row];
    return make("figure", {}, make("img", { src: uri, alt: name, loading: "lazy" }), make("figcaption", {}, name));
  });
  details.append(make("div", { class: "images" }, ...images));
}

// Held-out source images along the line between the two parts with the clearest valley.
function profile(values) {
  const width = 300, height = 70, bar = width / values.length, most = Math.max(...values, 1e-9);
  const svg = make("svg", { width, height: height + 18, viewBox: `0 0 ${width} ${height + 18}`, role: "img", "aria-label": "Held-out density between the two parts with the clearest valley" });
  values.forEach((value, i) => svg.append(make("rect", { x: i * bar + 0.5, width: bar - 1, y: height - (height * value) / most, height: (height * value) / most, fill: "#4a90c2" })));
  for (const [at, name] of [[1 / 6, "one part"], [0.5, "valley"], [5 / 6, "other part"]]) {
    svg.append(make("text", { x: at * width, y: height + 14, "text-anchor": "middle" }, name));
  }
  return svg;
}

function select(node, focus = false) {
  selected = node;
  drawTree();
  drawMap();
  drawDetails();
  if (focus) document.querySelector(`[data-id="${node.id}"]`).focus();
}

const chooser = document.getElementById("column");
for (const each of data.columns) chooser.append(make("option", { value: each.name }, each.name));
if (!data.columns.length) chooser.append(make("option", {}, "nothing: there are no columns"));
if (column) chooser.value = column.name;
chooser.addEventListener("change", () => {
  column = data.columns.find((each) => each.name === chooser.value);
  drawLegend();
  select(selected);
});
drawLegend();
select(root);
