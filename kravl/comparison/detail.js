"use strict";
// Charts of what runs keep beside their metrics: calibration, learning curves, classes, pictures.
(() => {
  const { element, look, percent, withSpread, figure, plot, none, ZERO } = kravl;
  const OLD = "The runs of this selection kept nothing of it.";

  kravl.calibration = (groups, width, state) => {
    const sets = [...new Set(groups.flatMap((g) => Object.keys(g.reliability)))];
    const set = sets.includes(state.set) ? state.set : sets[0];
    const title = "Calibration";
    const caption = "Reliability: how often a prediction is right, by how sure the model is (15 bins, all seeds together). The larger a mark, the more images; above the diagonal a model is too modest, below it too sure.";
    const found = groups.filter((g) => g.reliability[set]);
    if (!found.length) return figure("calibration", { title, caption, chart: none(OLD), full: true });
    const total = (rows) => d3.sum(rows, (r) => r[0]);
    const error = (rows) => d3.sum(rows, ([n, sure, right]) => n * Math.abs(sure - right)) / total(rows);
    const most = d3.max(found, (g) => d3.max(g.reliability[set], (r) => r[0] / total(g.reliability[set])));
    const small = found.map((g) => {
      const rows = g.reliability[set];
      const { colour, symbol, dash } = look(g.method);
      const name = `${g.method}\nECE ${withSpread(g.stats[`${set}/ece`] ?? [error(rows)])} %`;
      const chart = plot({
        height: 200, marginLeft: 36, marginBottom: 34, grid: false, x: { domain: [0, 100], label: "Confidence, % →", ticks: 5 },
        y: { domain: [0, 100], label: "↑ Right, %", ticks: 5 }, r: { domain: [0, most], range: [1.5, 9] },
        marks: [
          Plot.line([[0, 0], [100, 100]], { stroke: "var(--quiet)", strokeDasharray: "3 3" }),
          Plot.line(rows, { x: (r) => 100 * r[1], y: (r) => 100 * r[2], stroke: colour, strokeDasharray: dash }),
          Plot.dot(rows, { x: (r) => 100 * r[1], y: (r) => 100 * r[2], r: (r) => r[0] / total(rows), fill: colour, fillOpacity: 0.7, symbol, className: "point" }),
        ],
      }, 230);
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `Reliability of ${name.replace("\n", ", ")}`);
      return element("div", {}, element("h4", {}, name), chart);
    });
    return figure("calibration", {
      title, caption, full: true, chart: element("div", { class: "small" }, ...small),
      options: [kravl.choice("Set", sets, set, (value) => state.change("set", value))],
      header: ["method", "images", "mean confidence, %", "right, %"],
      rows: found.flatMap((g) => g.reliability[set].map(([n, sure, right]) => [g.method, n, percent(sure), percent(right)])),
    });
  };

  kravl.learningCurves = (groups, width) => {
    const title = "Learning curves";
    const caption = "Training loss (cross-entropy, nats), mean over the steps since the point before and over seeds.";
    const found = groups.filter((g) => g.curve.length);
    if (!found.length) return figure("curves", { title, caption, chart: none(OLD), full: true });
    const chart = plot({
      height: 300, x: { label: "Optimiser step →" }, y: { label: "↑ Loss", nice: true, ticks: 6 },
      marks: found.flatMap((g) => {
        const { colour, symbol, dash } = look(g.method);
        const at = { x: (d) => d[0], y: (d) => d[1] };
        const few = g.curve.filter((_, i) => i % Math.ceil(g.curve.length / 8) === 0);
        return [Plot.line(g.curve, { ...at, stroke: colour, strokeDasharray: dash, strokeWidth: 1.5 }), Plot.dot(few, { ...at, fill: colour, symbol, r: 3.5 })];
      }),
    }, width);
    return figure("curves", {
      title, caption, chart, full: true, header: ["method", "step", "loss"],
      rows: found.flatMap((g) => g.curve.map(([step, loss]) => [g.method, step, loss])),
    });
  };

  kravl.classDifferences = (setting, one, other, width) => {
    const title = "Class by class";
    const most = 20;
    if (!one || !other || !one.recall.length || !other.recall.length) return figure("classes", { title, caption: "", chart: none(OLD), full: true });
    const known = setting.classes.map((name, i) => ({ name, i, a: one.recall[i], b: other.recall[i] })).filter((d) => d.a != null && d.b != null);
    const sorted = known.map((d) => ({ ...d, difference: 100 * (d.a - d.b) })).sort((p, q) => q.difference - p.difference || p.i - q.i);
    const shown = sorted.length > 2 * most ? [...sorted.slice(0, most), ...sorted.slice(-most)] : sorted;
    const key = (d) => String(d.i); // two classes may have one name
    const label = new Map(shown.map((d) => [key(d), d.name.length > 26 ? `${d.name.slice(0, 25)}…` : d.name]));
    const chart = plot({
      height: 60 + 17 * shown.length, marginLeft: Math.min(190, 24 + 7 * d3.max(shown, (d) => label.get(key(d)).length)), grid: false,
      x: { label: `Points that ${one.method} is better (+) or worse (−) than ${other.method} →`, grid: true, nice: true },
      y: { domain: shown.map(key), label: null, tickFormat: (k) => label.get(k) },
      marks: [
        Plot.barX(shown, { x: "difference", y: key, fill: (d) => (d.difference >= 0 ? look(one.method).colour : look(other.method).colour), className: "point" }),
        Plot.ruleX([0], { stroke: "var(--ink)" }),
      ],
    }, width);
    return figure("classes", {
      title, chart, full: true,
      caption: `Recall of ${one.method} less that of ${other.method} on the test set, mean over seeds${shown.length < sorted.length ? `; the ${most} classes at either end of ${sorted.length}` : ""}. A bar has the colour of the better one.`,
      header: ["class", one.method, other.method, "difference, points"],
      rows: sorted.map((d) => [d.name, percent(d.a), percent(d.b), d.difference.toFixed(1)]),
    });
  };

  kravl.pictures = (setting, one, other) => {
    const kept = setting.pictures;
    const title = "Pictures that one gets right and the other wrong";
    const given = { title, full: true };
    if (!kept) return figure("pictures", { ...given, caption: "", chart: none("No pictures: the runs kept no predictions, or their data set is not on the disk where this page was written.") });
    if (!kept.methods.includes(one) || !kept.methods.includes(other)) return figure("pictures", { ...given, caption: "", chart: none(`No predictions of both methods at ${kept.shots} images a class.`) });
    const item = (image) => element("li", {},
      element("img", { src: image.source, alt: `A test picture of ${setting.classes[image.label]}` }),
      element("b", {}, setting.classes[image.label] ?? ""),
      ...[one, other].flatMap((method) => {
        const [said, sure] = image.says[method];
        return [element("br"), `${said === image.label ? "✓" : "✗"} ${method}: ${setting.classes[said] ?? said} (${Math.round(100 * sure)} %)`];
      }));
    const rows = [[one, other], [other, one]].filter(([a, b]) => a !== b).map(([a, b]) => {
      const found = kept.images.filter((image) => image.says[a][0] === image.label && image.says[b][0] !== image.label).slice(0, 8);
      return element("div", {}, element("h4", {}, `${a} right, ${b} wrong: ${kept.counts[a][b]} images${found.length ? `, ${found.length} of them` : ""}`), element("ul", { class: "pictures" }, ...found.map(item)));
    });
    return figure("pictures", { ...given, caption: `First seed, ${kept.shots} images a class; taken at equal steps through the test set, not chosen.`, chart: element("div", {}, ...rows) });
  };
})();
