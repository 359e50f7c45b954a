"use strict";
// Charts of means over seeds: against images per class, on each set, against cost.
(() => {
  const { look, nameOf, withSpread, figure, plot, none, marks, spread, ID, OOD, ZERO } = kravl;

  kravl.againstShots = (setting, shown, width) => {
    const orders = [...new Set(shown.filter((g) => g.method !== ZERO && g.order !== null).map((g) => g.order))].sort(
      (a, b) => a - b,
    );
    const all = 2 * (orders.at(-1) ?? 1);
    const where = (group) => group.order ?? all;
    const panels = [
      [ID, "in domain"],
      [OOD, "mean of the other sets"],
    ];
    const rows = panels.flatMap(([name, panel]) =>
      shown.filter((g) => g.stats[name]).map((g) => ({ group: g, panel, stat: g.stats[name] })),
    );
    const still = rows.filter((r) => r.group.method === ZERO);
    const moving = rows.filter((r) => r.group.method !== ZERO);
    const positions = [...new Set(moving.map((r) => where(r.group)))].sort((a, b) => a - b);
    const value = { x: (r) => where(r.group), y: (r) => 100 * r.stat[0], fx: "panel" };
    const band = { x: value.x, fx: "panel", y1: (r) => 100 * spread(r.stat, -1), y2: (r) => 100 * spread(r.stat, 1) };
    const few = new Set(moving.map((r) => r.group.method)).size <= 6; // more bands hide each other
    const lines = [...d3.group(moving, (r) => r.group.method)].flatMap(([method, found]) => {
      const { colour, symbol, dash } = look(method);
      const sorted = d3.sort(found, value.x);
      return [
        few ? Plot.areaY(sorted, { ...band, fill: colour, fillOpacity: 0.15 }) : null,
        Plot.ruleX(sorted, { ...band, stroke: colour, strokeOpacity: 0.6 }),
        Plot.line(sorted, { ...value, stroke: colour, strokeDasharray: dash, strokeWidth: 1.75 }),
        Plot.dot(sorted, { ...value, fill: colour, symbol, r: 4, className: "point" }),
      ];
    });
    const named = kravl.hasRoom(width / 2);
    const known = panels.map((p) => p[1]).filter((p) => rows.some((r) => r.panel === p));
    const inner = named ? (2 * kravl.ROOM) / (width - 48) : 0.12; // the share that leaves a column of names free
    const chart = plot(
      {
        height: Math.max(340, 60 + 14.5 * new Set(shown.map((g) => g.method)).size),
        marginRight: named ? kravl.ROOM : 16,
        fx: {
          label: null,
          paddingInner: inner,
          paddingOuter: named ? 0 : 0.06,
          domain: known,
        },
        x: {
          type: "log",
          base: 2,
          label: "Images per class →",
          ticks: positions,
          tickFormat: (v) => (v === all ? "all" : d3.format("~g")(v)),
          inset: 12,
        },
        y: { label: "↑ Top-1 %", nice: true },
        marks: [
          Plot.ruleY(still, { y: value.y, fx: "panel", stroke: look(ZERO).colour, strokeDasharray: "1 3", strokeWidth: 2 }),
          ...lines,
        ],
      },
      width,
    );
    if (named && rows.length) {
      const [x, y, fx] = ["x", "y", "fx"].map((name) => chart.scale(name));
      for (const panel of known) {
        const last = d3.rollups(
          rows.filter((r) => r.panel === panel),
          (found) => d3.greatest(found, value.x),
          (r) => r.group.method,
        );
        const start = fx.apply(panel);
        const places = last.map(([method, r]) => ({
          method,
          x: start + (method === ZERO ? x.range[1] : x.apply(value.x(r))) - x.range[0],
          y: y.apply(value.y(r)),
        }));
        kravl.beside(chart, places, start + fx.bandwidth, [y.range[1], y.range[0]]);
      }
    }
    return figure("against-shots", {
      title: "Accuracy against images per class",
      full: true,
      chart: rows.length ? chart : none("Nothing is selected."),
      caption: `${few ? "Bands and bars" : "Bars"}: sample standard deviation over seeds. Dotted grey: zero-shot.`,
      header: ["method", "images per class", "panel", "top-1 %"],
      rows: rows.map((r) => [nameOf(r.group.method), r.group.shots, r.panel, withSpread(r.stat)]),
    });
  };

  kravl.onEachSet = (setting, groups, width) => {
    const names = [...new Set(groups.flatMap((g) => Object.keys(g.stats)))].filter((name) =>
      name.endsWith("/accuracy"),
    );
    const mean = (name) => d3.mean(groups, (g) => g.stats[name]?.[0]);
    const sets = d3.sort(names, (name) => (name === ID ? -2 : -mean(name)));
    const label = (name) => name.replace(/\/accuracy$/, "").replaceAll("_", " ");
    const row = Math.max(24, 6 * groups.length);
    const offset = (i) => (i - (groups.length - 1) / 2) * Math.min(5, (0.85 * row) / groups.length);
    const chart = plot(
      {
        height: 70 + row * sets.length,
        marginLeft: Math.min(170, 20 + 7 * d3.max(sets, (s) => label(s).length)),
        x: { label: "Top-1 % →", nice: true },
        y: { label: null, domain: sets.map(label), type: "band" },
        marks: groups.flatMap((g, i) => {
          const { colour, symbol } = look(g.method);
          const found = sets.filter((name) => g.stats[name]).map((name) => ({ name, stat: g.stats[name] }));
          const y = { y: (d) => label(d.name), dy: offset(i) };
          return [
            Plot.link(found, {
              y1: (d) => label(d.name),
              y2: (d) => label(d.name),
              x1: (d) => 100 * spread(d.stat, -1),
              x2: (d) => 100 * spread(d.stat, 1),
              dy: offset(i),
              stroke: colour,
            }),
            Plot.dot(found, { ...y, x: (d) => 100 * d.stat[0], fill: colour, symbol, r: 4, className: "point" }),
          ];
        }),
      },
      width,
    );
    return figure("each-set", {
      title: "On each set",
      caption: "In domain first, then from best to worst; bars: standard deviation over seeds.",
      chart,
      header: ["set", ...groups.map((g) => nameOf(g.method))],
      rows: sets.map((name) => [label(name), ...groups.map((g) => withSpread(g.stats[name]))]),
    });
  };

  kravl.againstCost = (groups, quantity, title, width, type) => {
    const id = `against-${quantity.replaceAll("_", "-")}`;
    const points = groups.filter((g) => g.stats[quantity]?.[0] > 0 && g.stats[ID]);
    const caption = "Filled: in domain; hollow: mean of the other sets.";
    if (!points.length) return figure(id, { title, caption, chart: none("No selected run has this number.") });
    const x = (g) => g.stats[quantity][0];
    const bars = (name) =>
      Plot.ruleX(
        points.filter((g) => g.stats[name]),
        {
          x,
          y1: (g) => 100 * spread(g.stats[name], -1),
          y2: (g) => 100 * spread(g.stats[name], 1),
          stroke: (g) => look(g.method).colour,
        },
      );
    const chart = plot(
      {
        height: 300,
        x: {
          type,
          label: `${title.split(" against ")[1]} →`,
          inset: 14,
          tickFormat: type === "log" ? "~s" : undefined,
          ...(type === "log" && { ticks: 4 }),
        },
        y: { label: "↑ Top-1 %", inset: 8 },
        marks: [
          bars(ID),
          bars(OOD),
          ...marks(points, { x, y: (g) => 100 * g.stats[ID][0], className: "point" }),
          ...marks(
            points.filter((g) => g.stats[OOD]),
            { x, y: (g) => 100 * g.stats[OOD][0], fill: "var(--page)", strokeWidth: 1.75 },
          ),
        ],
      },
      width,
    );
    const show = quantity === "effective_rank" ? (v) => v.toFixed(1) : (v) => d3.format(",.0f")(v);
    return figure(id, {
      title,
      caption,
      chart,
      header: ["method", title.split(" against ")[1], "in domain", "other sets"],
      rows: points.map((g) => [
        nameOf(g.method),
        withSpread(g.stats[quantity], show),
        withSpread(g.stats[ID]),
        withSpread(g.stats[OOD]),
      ]),
    });
  };
})();
