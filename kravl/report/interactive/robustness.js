"use strict";
// Out of distribution against in distribution, on axes of logits as in https://arxiv.org/abs/2007.00644.
(() => {
  const { look, nameOf, percent, withSpread, figure, plot, none, marks, spread, ID, OOD } = kravl;
  const TITLE = "Out of distribution against in distribution";
  const TICKS = [0.1, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9]; // percent
  const logit = (p) => Math.log(p / (1 - p));
  const expit = (x) => 1 / (1 + Math.exp(-x));
  const bounded = (p) => Math.min(0.999, Math.max(0.001, p)); // an accuracy of 0 or 1 has no logit
  const has = (group) => group.stats[ID] && group.stats[OOD];

  function ticks(values) {
    const [low, high] = d3.extent(values.map((p) => 100 * p));
    const wide = TICKS.filter((p) => low <= p && p <= high);
    return (wide.length >= 4 ? wide : d3.ticks(low, high, 5)).filter((p) => 0 < p && p < 100).map((p) => p / 100);
  }

  // Every value that an axis must hold: means, deviations and the points of WiSE-FT's lines.
  const extent = (groups, name, place) =>
    groups
      .flatMap((g) => [spread(g.stats[name], 1), spread(g.stats[name], -1), ...g.wise.map((point) => point[place])])
      .map(bounded);

  function baseline(line, xs, ys, scale) {
    const [low, high] = d3.extent(xs);
    const along = d3.range(41).map((i) => low + ((high - low) * i) / 40);
    const points = along.map((p) => [p, expit(line.slope * logit(p) + line.intercept)]);
    const inside = points.filter(([, q]) => q >= d3.min(ys) && q <= d3.max(ys));
    return Plot.line(inside, {
      x: (d) => scale(d[0]),
      y: (d) => scale(d[1]),
      stroke: "var(--quiet)",
      strokeDasharray: "6 4",
      strokeWidth: 1.5,
    });
  }

  function weightLine(group, scale) {
    const { colour, dash } = look(group.method);
    const at = { x: (point) => scale(point[1]), y: (point) => scale(point[2]) };
    return [
      Plot.line(group.wise, { ...at, stroke: colour, strokeWidth: 1.5, strokeDasharray: dash }),
      Plot.dot(group.wise.slice(1, -1), { ...at, fill: colour, r: 2 }),
    ];
  }

  function draw(line, points, anchors, width, state) {
    const scale = state.logit ? (p) => logit(bounded(p)) : (p) => 100 * p;
    const at = { x: (g) => scale(g.stats[ID][0]), y: (g) => scale(g.stats[OOD][0]) };
    const end = (name, sign) => (g) => scale(spread(g.stats[name], sign));
    const stroke = (g) => look(g.method).colour;
    const [xs, ys] = [extent([...points, ...anchors], ID, 1), extent([...points, ...anchors], OOD, 2)];
    const axis = (label, values) => ({
      label,
      domain: d3.extent(values, scale),
      inset: 14,
      ...(state.logit && { ticks: ticks(values).map(scale), tickFormat: (v) => d3.format(".3~g")(100 * expit(v)) }),
    });
    const said = (g) => `${nameOf(g.method)}\nin domain ${withSpread(g.stats[ID])}\nother sets ${withSpread(g.stats[OOD])}`;
    const named = kravl.hasRoom(width);
    const chart = plot(
      {
        height: Math.max(360, 60 + 14.5 * points.length),
        marginRight: named ? kravl.ROOM : 16,
        x: axis("In domain, top-1 % →", xs),
        y: axis("↑ Mean of the other sets, top-1 %", ys),
        marks: [
          line && baseline(line, xs, ys, scale),
          ...points.filter((g) => g.wise.length).flatMap((g) => weightLine(g, scale)),
          ...marks(anchors, { ...at, r: 3, fillOpacity: 0.35, strokeOpacity: 0.6 }),
          Plot.ruleY(points, { y: at.y, x1: end(ID, -1), x2: end(ID, 1), stroke }),
          Plot.ruleX(points, { x: at.x, y1: end(OOD, -1), y2: end(OOD, 1), stroke }),
          ...marks(points, { ...at, className: "point" }),
          Plot.tip(points, Plot.pointer({ ...at, title: said })),
        ],
      },
      width,
    );
    if (!named) return chart;
    const [x, y] = ["x", "y"].map((name) => chart.scale(name));
    const places = points.map((g) => ({ method: g.method, x: x.apply(at.x(g)), y: y.apply(at.y(g)) }));
    return kravl.beside(chart, places, width - kravl.ROOM, [y.range[1], y.range[0]]);
  }

  function fit(line) {
    if (!line) return "No effective-robustness line: it needs three different zero-shot or linear-probe groups.";
    const over = `${line.points} groups of ${kravl.data.baselines.join(" and ")}`;
    const how = `least squares of the logits over the ${over} (all shots, r = ${line.correlation.toFixed(2)})`;
    return `Dashed grey: ${how}; effective robustness is the distance above it.`;
  }

  kravl.scatter = (setting, groups, width, state) => {
    const points = groups.filter(has);
    if (!points.length) {
      const chart = none("No run here was evaluated on other sets.");
      return figure("scatter", { title: TITLE, caption: "Mean top-1 accuracy of the other sets.", chart });
    }
    const isBaseline = (g) => has(g) && kravl.data.baselines.includes(nameOf(g.method)) && !points.includes(g);
    const toggle = kravl.element("input", { type: "checkbox", id: "logit" });
    toggle.checked = state.logit;
    toggle.addEventListener("change", () => state.change("logit", toggle.checked));
    return figure("scatter", {
      title: TITLE,
      chart: draw(setting.line, points, setting.line ? setting.groups.filter(isBaseline) : [], width, state),
      caption: `Lines with small dots: WiSE-FT, from the pretrained to the adapted weights. ${fit(setting.line)}`,
      options: [kravl.element("label", { class: "option screen" }, toggle, "logit axes")],
      header: ["method", "images per class", "in domain", "other sets", "beyond the line, points"],
      rows: points.map((g) => [
        nameOf(g.method),
        g.shots,
        withSpread(g.stats[ID]),
        withSpread(g.stats[OOD]),
        percent(g.beyond),
      ]),
    });
  };
})();
