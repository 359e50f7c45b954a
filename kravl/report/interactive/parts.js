"use strict";
// Shared by all charts: elements whose content is text, the style of each method, a figure with its numbers.
const kravl = {
  data: JSON.parse(document.getElementById("data").textContent),
  ZERO: "zero-shot",
  ID: "test/accuracy",
  OOD: "ood_mean",
};

kravl.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

kravl.methods = [...new Set(kravl.data.settings.flatMap((setting) => setting.groups.map((group) => group.method)))];

const polygon = (corners) => ({
  draw(context, size) {
    corners.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x * Math.sqrt(size), y * Math.sqrt(size)));
    context.closePath();
  },
});
const ARM = [[1, 3], [1, 1], [3, 1], [3, -1], [1, -1], [1, -3], [-1, -3], [-1, -1], [-3, -1], [-3, 1], [-1, 1], [-1, 3]];
const SYMBOLS = {
  circle: d3.symbolCircle,
  square: d3.symbolSquare,
  diamond: d3.symbolDiamond,
  triangle: d3.symbolTriangle,
  star: d3.symbolStar,
  cross: d3.symbolCross,
  down: polygon([[-0.76, -0.44], [0.76, -0.44], [0, 0.88]]),
  times: polygon(ARM.map(([x, y]) => [(x - y) * 0.158, (x + y) * 0.158])),
  pentagon: polygon(d3.range(5).map((i) => [0.65 * Math.sin(0.4 * Math.PI * i), -0.65 * Math.cos(0.4 * Math.PI * i)])),
};

// Name, colour, symbol and dash of a method, which do not depend on the other methods of the page.
kravl.look = (method) => {
  const seen = kravl.data.looks[method];
  return { ...seen, symbol: SYMBOLS[seen.symbol] };
};
kravl.nameOf = (method) => kravl.data.looks[method].name;

kravl.sample = (method) => {
  const { colour, symbol, dash } = kravl.look(method);
  const svg = d3.create("svg").attr("viewBox", "0 0 36 16").attr("aria-hidden", "true");
  svg.append("path").attr("d", "M1,8H35").attr("stroke", colour).attr("stroke-width", 2).attr("stroke-dasharray", dash);
  const path = d3.symbol(symbol, 60)();
  svg.append("path").attr("d", path).attr("transform", "translate(18,8)").attr("fill", colour);
  return svg.node();
};

kravl.percent = (value) => (value == null ? "" : (100 * value).toFixed(1));
kravl.withSpread = (stat, show = kravl.percent) => {
  if (!stat) return "";
  return show(stat[0]) + (stat[1] ? ` ± ${show(stat[1])}` : "");
};

kravl.table = (header, rows) => {
  const head = kravl.element("tr", {}, ...header.map((text) => kravl.element("th", { scope: "col" }, text)));
  const lines = rows.map((row) =>
    kravl.element(
      "tr",
      {},
      ...row.map((text, i) => kravl.element(i ? "td" : "th", i ? {} : { scope: "row" }, String(text ?? ""))),
    ),
  );
  return kravl.element("table", {}, kravl.element("thead", {}, head), kravl.element("tbody", {}, ...lines));
};

// A figure: heading, caption, chart or the reason why there is none, and the numbers behind it.
kravl.figure = (id, { title, caption, chart, header, rows, full = false, options = [] }) => {
  const captionNode = kravl.element(
    "figcaption",
    {},
    kravl.element("h3", {}, title),
    kravl.element("p", {}, caption),
    ...options,
  );
  const figure = kravl.element("figure", { class: full ? "figure full" : "figure", id }, captionNode, chart);
  if (chart instanceof SVGElement) {
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${title}. ${caption} The numbers are in the table below.`);
  }
  if (rows?.length) {
    const region = kravl.element(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": `${title}: numbers` },
      kravl.table(header, rows),
    );
    figure.append(kravl.element("details", {}, kravl.element("summary", {}, "Numbers"), region));
  }
  return figure;
};

kravl.OLD = "The selected runs have no data for this chart.";
kravl.none = (text) => kravl.element("p", { class: "none" }, text);

kravl.choice = (label, values, chosen, change) => {
  const select = kravl.element(
    "select",
    {},
    ...values.map((value) => new Option(value, value, false, value === chosen)),
  );
  select.addEventListener("change", () => change(select.value));
  return kravl.element("label", { class: "option screen" }, label, select);
};

kravl.plot = (options, width) =>
  Plot.plot({
    width,
    marginLeft: 48,
    marginRight: 16,
    marginBottom: 40,
    grid: true,
    style: { background: "none", color: "var(--ink)", fontSize: "12px", fontFamily: "inherit" },
    ...options,
  });

// One dot for each group, in the style of its method.
kravl.marks = (groups, options) =>
  groups.map((group) => {
    const { colour, symbol } = kravl.look(group.method);
    return Plot.dot([group], { symbol, fill: colour, stroke: colour, r: 5, ...options });
  });

// A column of names beside a chart, each joined to its place; in their order, and never nearer than a line.
kravl.ROOM = 135; // pixels of a column
kravl.hasRoom = (width) => width >= 480;
kravl.beside = (chart, places, left, [top, bottom]) => {
  const GAP = 14;
  const sorted = d3.sort(places, (place) => place.y);
  const down = sorted.map((place) => place.y);
  const up = [...down];
  for (let i = 1; i < down.length; i++) down[i] = Math.max(down[i], down[i - 1] + GAP);
  for (let i = up.length - 2; i >= 0; i--) up[i] = Math.min(up[i], up[i + 1] - GAP);
  const at = down.map((y, i) => (y + up[i]) / 2);
  for (let i = 0; i < at.length; i++) at[i] = Math.max(at[i], i ? at[i - 1] + GAP : top);
  for (let i = at.length - 1; i >= 0; i--) at[i] = Math.min(at[i], i < at.length - 1 ? at[i + 1] - GAP : bottom);
  const group = d3.select(chart).append("g").attr("class", "names").attr("aria-hidden", "true")
    .attr("text-anchor", "start");
  sorted.forEach(({ method, x, y }, i) => {
    const { colour, symbol, name } = kravl.look(method);
    const end = left + 12;
    group.append("path").attr("d", `M${x},${y}L${end},${at[i]}`).attr("stroke", colour).attr("stroke-opacity", 0.6);
    group.append("path").attr("d", d3.symbol(symbol, 30)()).attr("transform", `translate(${end},${at[i]})`)
      .attr("fill", colour);
    const short = name.length > 19 ? `${name.slice(0, 9)}…${name.slice(-9)}` : name;
    group.append("text").attr("x", end + 7).attr("y", at[i]).attr("dy", "0.32em").attr("fill", "currentColor").text(short);
  });
  return chart;
};

// Mean plus or minus one standard deviation.
kravl.spread = (stat, sign) => stat[0] + sign * (stat[1] ?? 0);
