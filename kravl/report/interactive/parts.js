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
const trained = kravl.methods.filter((method) => method !== kravl.ZERO).sort();
const SYMBOLS = ["circle", "square", "triangle", "diamond", "cross", "wye"];
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 2"];

// 7 colours, 6 marks and 5 dashes: no two of the first 210 methods look the same
kravl.look = (method) => {
  if (method === kravl.ZERO) return { colour: "var(--zero)", symbol: "star", dash: "1 3" };
  const i = trained.indexOf(method);
  return { colour: `var(--m${i % 7})`, symbol: SYMBOLS[i % 6], dash: DASHES[i % 5] };
};

kravl.sample = (method) => {
  const { colour, symbol, dash } = kravl.look(method);
  const svg = d3.create("svg").attr("viewBox", "0 0 36 16").attr("aria-hidden", "true");
  svg.append("path").attr("d", "M1,8H35").attr("stroke", colour).attr("stroke-width", 2).attr("stroke-dasharray", dash);
  const path = d3.symbol(d3[`symbol${symbol[0].toUpperCase()}${symbol.slice(1)}`], 60)();
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

// Mean plus or minus one standard deviation.
kravl.spread = (stat, sign) => stat[0] + sign * (stat[1] ?? 0);
