"use strict";
// Charts of means over seeds: one set against another, against images a class, on each set, against cost.
(() => {
  const { look, percent, withSpread, figure, plot, none, ID, OOD, ZERO } = kravl;
  const logit = (p) => Math.log(p / (1 - p));
  const bounded = (p) => Math.min(0.999, Math.max(0.001, p)); // an accuracy of 0 or 1 has no logit
  const marks = (groups, options) => groups.map((group) => {
    const { colour, symbol } = look(group.method);
    return Plot.dot([group], { symbol, fill: colour, stroke: colour, r: 5, ...options });
  });
  const spread = (stat, sign) => stat[0] + sign * (stat[1] ?? 0);

  function ticks(values) {
    const [low, high] = d3.extent(values.map((p) => 100 * p));
    const wide = [0.1, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9].filter((p) => low <= p && p <= high);
    return (wide.length >= 4 ? wide : d3.ticks(low, high, 5)).filter((p) => 0 < p && p < 100).map((p) => p / 100);
  }

  kravl.scatter = (setting, groups, width, state) => {
    const title = "Out of distribution against in distribution";
    const has = (group) => group.stats[ID] && group.stats[OOD];
    const points = groups.filter(has);
    if (!points.length) return figure("scatter", { title, caption: "Mean top-1 accuracy of the other sets.", chart: none("No run here was evaluated on other sets.") });
    const line = setting.line;
    const anchors = line && state.logit ? setting.groups.filter((group) => has(group) && kravl.data.baselines.includes(group.method)) : [];
    const scale = state.logit ? (p) => logit(bounded(p)) : (p) => 100 * p;
    const x = (name) => (group) => scale(group.stats[name][0]);
    const xs = [...points, ...anchors].flatMap((g) => [spread(g.stats[ID], 1), spread(g.stats[ID], -1), ...g.wise.map((w) => w[1])]).map(bounded);
    const ys = [...points, ...anchors].flatMap((g) => [spread(g.stats[OOD], 1), spread(g.stats[OOD], -1), ...g.wise.map((w) => w[2])]).map(bounded);
    const axis = (label, values) => ({ label, domain: d3.extent(values, scale), inset: 14, nice: false, ...(state.logit && { ticks: ticks(values).map(scale), tickFormat: (v) => d3.format(".3~g")(100 / (1 + Math.exp(-v))) }) });
    const along = d3.range(41).map((i) => d3.min(xs) + ((d3.max(xs) - d3.min(xs)) * i) / 40);
    const fitted = line ? along.map((p) => [p, 1 / (1 + Math.exp(-(line.slope * logit(p) + line.intercept)))]).filter(([, q]) => q >= d3.min(ys) && q <= d3.max(ys)) : [];
    const chart = plot({
      height: 360, x: axis("In domain, top-1 % →", xs), y: axis("↑ Mean of the other sets, top-1 %", ys),
      marks: [
        Plot.line(fitted, { x: (d) => scale(d[0]), y: (d) => scale(d[1]), stroke: "var(--quiet)", strokeDasharray: "6 4", strokeWidth: 1.5 }),
        ...points.filter((g) => g.wise.length).flatMap((g) => [
          Plot.line(g.wise, { x: (w) => scale(w[1]), y: (w) => scale(w[2]), stroke: look(g.method).colour, strokeWidth: 1.5, strokeDasharray: look(g.method).dash }),
          Plot.dot(g.wise.slice(1, -1), { x: (w) => scale(w[1]), y: (w) => scale(w[2]), fill: look(g.method).colour, r: 2 }),
        ]),
        ...marks(anchors.filter((g) => !points.includes(g)), { x: x(ID), y: x(OOD), r: 3, fillOpacity: 0.35, strokeOpacity: 0.6 }),
        Plot.ruleY(points, { y: x(OOD), x1: (g) => scale(spread(g.stats[ID], -1)), x2: (g) => scale(spread(g.stats[ID], 1)), stroke: (g) => look(g.method).colour }),
        Plot.ruleX(points, { x: x(ID), y1: (g) => scale(spread(g.stats[OOD], -1)), y2: (g) => scale(spread(g.stats[OOD], 1)), stroke: (g) => look(g.method).colour }),
        ...marks(points, { x: x(ID), y: x(OOD), className: "point" }),
        Plot.tip(points, Plot.pointer({ x: x(ID), y: x(OOD), title: (g) => `${g.method}\nin domain ${withSpread(g.stats[ID])}\nother sets ${withSpread(g.stats[OOD])}` })),
      ],
    }, width);
    const fit = line
      ? `Dashed grey: least squares of the logits over the ${line.points} groups of ${kravl.data.baselines.join(" and ")} (all amounts; r = ${line.correlation.toFixed(2)}); effective robustness is the distance above it.`
      : "No effective-robustness line: it takes three zero-shot or linear-probe groups of different accuracy.";
    const toggle = kravl.element("input", { type: "checkbox", id: "logit" });
    toggle.checked = state.logit;
    toggle.addEventListener("change", () => state.change("logit", toggle.checked));
    return figure("scatter", {
      title, chart, caption: `Lines with small dots: WiSE-FT, from the pretrained to the adapted weights. ${fit}`,
      options: [kravl.element("label", { class: "option screen" }, toggle, "logit axes")],
      header: ["method", "images a class", "in domain", "other sets", "beyond the line, points"],
      rows: points.map((g) => [g.method, g.shots, withSpread(g.stats[ID]), withSpread(g.stats[OOD]), percent(g.beyond)]),
    });
  };

  kravl.againstShots = (setting, shown, width) => {
    const orders = [...new Set(shown.filter((g) => g.method !== ZERO && g.order !== null).map((g) => g.order))].sort((a, b) => a - b);
    const all = 2 * (orders.at(-1) ?? 1);
    const where = (group) => group.order ?? all;
    const panels = [[ID, "in domain"], [OOD, "mean of the other sets"]];
    const rows = panels.flatMap(([name, panel]) => shown.filter((g) => g.stats[name]).map((g) => ({ group: g, panel, stat: g.stats[name] })));
    const still = rows.filter((r) => r.group.method === ZERO);
    const moving = rows.filter((r) => r.group.method !== ZERO);
    const positions = [...new Set(moving.map((r) => where(r.group)))].sort((a, b) => a - b);
    const value = { x: (r) => where(r.group), y: (r) => 100 * r.stat[0], fx: "panel" };
    const band = { x: value.x, fx: "panel", y1: (r) => 100 * spread(r.stat, -1), y2: (r) => 100 * spread(r.stat, 1) };
    const lines = [...d3.group(moving, (r) => r.group.method)].flatMap(([method, found]) => {
      const { colour, symbol, dash } = look(method);
      const sorted = d3.sort(found, value.x);
      return [
        Plot.areaY(sorted, { ...band, fill: colour, fillOpacity: 0.15 }),
        Plot.ruleX(sorted, { ...band, stroke: colour, strokeOpacity: 0.6 }),
        Plot.line(sorted, { ...value, stroke: colour, strokeDasharray: dash, strokeWidth: 1.75 }),
        Plot.dot(sorted, { ...value, fill: colour, symbol, r: 4, className: "point" }),
      ];
    });
    const chart = plot({
      height: 340, fx: { label: null, padding: 0.12, domain: panels.map((p) => p[1]).filter((p) => rows.some((r) => r.panel === p)) },
      x: { type: "log", base: 2, label: "Images a class →", ticks: positions, tickFormat: (v) => (v === all ? "all" : d3.format("~g")(v)), inset: 12 },
      y: { label: "↑ Top-1 %", nice: true },
      marks: [Plot.ruleY(still, { y: value.y, fx: "panel", stroke: "var(--zero)", strokeDasharray: "1 3", strokeWidth: 2 }), ...lines],
    }, width);
    return figure("against-shots", {
      title: "Accuracy against images a class", full: true, chart: rows.length ? chart : none("Nothing is chosen."),
      caption: "Bands and bars: sample standard deviation over seeds. Dotted grey: zero-shot.",
      header: ["method", "images a class", "panel", "top-1 %"],
      rows: rows.map((r) => [r.group.method, r.group.shots, r.panel, withSpread(r.stat)]),
    });
  };

  kravl.onEachSet = (setting, groups, width) => {
    const names = [...new Set(groups.flatMap((g) => Object.keys(g.stats)))].filter((name) => name.endsWith("/accuracy"));
    const mean = (name) => d3.mean(groups, (g) => g.stats[name]?.[0]);
    const sets = d3.sort(names, (name) => (name === ID ? -2 : -mean(name)));
    const label = (name) => name.replace(/\/accuracy$/, "").replaceAll("_", " ");
    const offset = (i) => (i - (groups.length - 1) / 2) * Math.min(5, 22 / groups.length);
    const chart = plot({
      height: 70 + Math.max(24, 6 * groups.length) * sets.length, marginLeft: Math.min(170, 20 + 7 * d3.max(sets, (s) => label(s).length)),
      x: { label: "Top-1 % →", nice: true }, y: { label: null, domain: sets.map(label), type: "band" },
      marks: groups.flatMap((g, i) => {
        const { colour, symbol } = look(g.method);
        const found = sets.filter((name) => g.stats[name]).map((name) => ({ name, stat: g.stats[name] }));
        const y = { y: (d) => label(d.name), dy: offset(i) };
        return [
          Plot.link(found, { y1: (d) => label(d.name), y2: (d) => label(d.name), x1: (d) => 100 * spread(d.stat, -1), x2: (d) => 100 * spread(d.stat, 1), dy: offset(i), stroke: colour }),
          Plot.dot(found, { ...y, x: (d) => 100 * d.stat[0], fill: colour, symbol, r: 4, className: "point" }),
        ];
      }),
    }, width);
    return figure("each-set", {
      title: "On each set", caption: "In domain first, then by what is lost there; bars: standard deviation over seeds.", chart,
      header: ["set", ...groups.map((g) => g.method)], rows: sets.map((name) => [label(name), ...groups.map((g) => withSpread(g.stats[name]))]),
    });
  };

  kravl.againstCost = (groups, quantity, title, width, type) => {
    const id = `against-${quantity.replaceAll("_", "-")}`;
    const points = groups.filter((g) => g.stats[quantity]?.[0] > 0 && g.stats[ID]);
    const caption = "Filled: in domain; hollow: mean of the other sets.";
    if (!points.length) return figure(id, { title, caption, chart: none("No run here has a number for it.") });
    const x = (g) => g.stats[quantity][0];
    const bars = (name) => Plot.ruleX(points.filter((g) => g.stats[name]), { x, y1: (g) => 100 * spread(g.stats[name], -1), y2: (g) => 100 * spread(g.stats[name], 1), stroke: (g) => look(g.method).colour });
    const chart = plot({
      height: 300, x: { type, label: `${title.split(" against ")[1]} →`, inset: 14, tickFormat: type === "log" ? "~s" : undefined, ...(type === "log" && { ticks: 4 }) },
      y: { label: "↑ Top-1 %", inset: 8 },
      marks: [bars(ID), bars(OOD), ...marks(points, { x, y: (g) => 100 * g.stats[ID][0], className: "point" }),
        ...marks(points.filter((g) => g.stats[OOD]), { x, y: (g) => 100 * g.stats[OOD][0], fill: "var(--page)", strokeWidth: 1.75 })],
    }, width);
    const show = quantity === "effective_rank" ? (v) => v.toFixed(1) : (v) => d3.format(",.0f")(v);
    return figure(id, {
      title, caption, chart, header: ["method", title.split(" against ")[1], "in domain", "other sets"],
      rows: points.map((g) => [g.method, withSpread(g.stats[quantity], show), withSpread(g.stats[ID]), withSpread(g.stats[OOD])]),
    });
  };
})();
