"use strict";
// Charts of the files beside runs' metrics: reliability and learning curves.
(() => {
  const { element, look, nameOf, percent, withSpread, figure, plot, none } = kravl;

  kravl.calibration = (groups, width, state) => {
    const sets = [...new Set(groups.flatMap((g) => Object.keys(g.reliability)))];
    const set = sets.includes(state.set) ? state.set : sets[0];
    const title = "Calibration";
    const caption =
      "Reliability: the accuracy of predictions by their confidence (15 bins, all seeds pooled). " +
      "Larger marks stand for more images; above the diagonal a model is underconfident, below it overconfident.";
    const found = groups.filter((g) => g.reliability[set]);
    if (!found.length) return figure("calibration", { title, caption, chart: none(kravl.OLD), full: true });
    const total = (rows) => d3.sum(rows, (r) => r[0]);
    const error = (rows) => d3.sum(rows, ([n, sure, right]) => n * Math.abs(sure - right)) / total(rows);
    const most = d3.max(found, (g) => d3.max(g.reliability[set], (r) => r[0] / total(g.reliability[set])));
    const small = found.map((g) => {
      const rows = g.reliability[set];
      const { colour, symbol, dash } = look(g.method);
      const name = `${nameOf(g.method)}\nECE ${withSpread(g.stats[`${set}/ece`] ?? [error(rows)])} %`;
      const chart = plot(
        {
          height: 200,
          marginLeft: 36,
          marginBottom: 34,
          grid: false,
          x: { domain: [0, 100], label: "Confidence, % →", ticks: 5 },
          y: { domain: [0, 100], label: "↑ Right, %", ticks: 5 },
          r: { domain: [0, most], range: [1.5, 9] },
          marks: [
            Plot.line(
              [
                [0, 0],
                [100, 100],
              ],
              { stroke: "var(--quiet)", strokeDasharray: "3 3" },
            ),
            Plot.line(rows, { x: (r) => 100 * r[1], y: (r) => 100 * r[2], stroke: colour, strokeDasharray: dash }),
            Plot.dot(rows, {
              x: (r) => 100 * r[1],
              y: (r) => 100 * r[2],
              r: (r) => r[0] / total(rows),
              fill: colour,
              fillOpacity: 0.7,
              symbol,
              className: "point",
            }),
          ],
        },
        230,
      );
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `Reliability of ${name.replace("\n", ", ")}`);
      return element("div", {}, element("h4", {}, name), chart);
    });
    return figure("calibration", {
      title,
      caption,
      full: true,
      chart: element("div", { class: "small" }, ...small),
      options: [kravl.choice("Set", sets, set, (value) => state.change("set", value))],
      header: ["method", "images", "mean confidence, %", "right, %"],
      rows: found.flatMap((g) =>
        g.reliability[set].map(([n, sure, right]) => [nameOf(g.method), n, percent(sure), percent(right)]),
      ),
    });
  };

  kravl.learningCurves = (groups, width) => {
    const title = "Learning curves";
    const caption = "Training loss (cross-entropy, nats), mean over the steps since the previous point and over seeds.";
    const found = groups.filter((g) => g.curve.length);
    if (!found.length) return figure("curves", { title, caption, chart: none(kravl.OLD), full: true });
    const chart = plot(
      {
        height: 300,
        x: { label: "Optimiser step →" },
        y: { label: "↑ Loss", nice: true, ticks: 6 },
        marks: found.flatMap((g) => {
          const { colour, symbol, dash } = look(g.method);
          const at = { x: (d) => d[0], y: (d) => d[1] };
          const few = g.curve.filter((_, i) => i % Math.ceil(g.curve.length / 8) === 0);
          return [
            Plot.line(g.curve, { ...at, stroke: colour, strokeDasharray: dash, strokeWidth: 1.5 }),
            Plot.dot(few, { ...at, fill: colour, symbol, r: 3.5 }),
          ];
        }),
      },
      width,
    );
    return figure("curves", {
      title,
      caption,
      chart,
      full: true,
      header: ["method", "step", "loss"],
      rows: found.flatMap((g) => g.curve.map(([step, loss]) => [nameOf(g.method), step, loss])),
    });
  };
})();
