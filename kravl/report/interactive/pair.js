"use strict";
// Two methods side by side: class by class, and the pictures on which they differ.
(() => {
  const { element, look, nameOf, percent, figure, plot, none } = kravl;

  kravl.classDifferences = (setting, one, other, width) => {
    const title = "Class by class";
    const most = 20;
    if (!one || !other || !one.recall.length || !other.recall.length)
      return figure("classes", { title, caption: "", chart: none(kravl.OLD), full: true });
    const known = setting.classes
      .map((name, i) => ({ name, i, a: one.recall[i], b: other.recall[i] }))
      .filter((d) => d.a != null && d.b != null);
    const sorted = known
      .map((d) => ({ ...d, difference: 100 * (d.a - d.b) }))
      .sort((p, q) => q.difference - p.difference || p.i - q.i);
    const shown = sorted.length > 2 * most ? [...sorted.slice(0, most), ...sorted.slice(-most)] : sorted;
    const key = (d) => String(d.i); // two classes may share a name
    const label = new Map(shown.map((d) => [key(d), d.name.length > 26 ? `${d.name.slice(0, 25)}…` : d.name]));
    const chart = plot(
      {
        height: 60 + 17 * shown.length,
        marginLeft: Math.min(190, 24 + 7 * d3.max(shown, (d) => label.get(key(d)).length)),
        grid: false,
        x: {
          label: `Points that ${nameOf(one.method)} is better (+) or worse (−) than ${nameOf(other.method)} →`,
          grid: true,
          nice: true,
        },
        y: { domain: shown.map(key), label: null, tickFormat: (k) => label.get(k) },
        marks: [
          Plot.barX(shown, {
            x: "difference",
            y: key,
            fill: (d) => (d.difference >= 0 ? look(one.method).colour : look(other.method).colour),
            className: "point",
          }),
          Plot.ruleX([0], { stroke: "var(--ink)" }),
        ],
      },
      width,
    );
    return figure("classes", {
      title,
      chart,
      full: true,
      caption:
        `Recall of ${nameOf(one.method)} minus that of ${nameOf(other.method)} on the test set, mean over seeds` +
        (shown.length < sorted.length ? `; the ${most} classes at either end of ${sorted.length}` : "") +
        ". A bar has the colour of the better one.",
      header: ["class", nameOf(one.method), nameOf(other.method), "difference, points"],
      rows: sorted.map((d) => [d.name, percent(d.a), percent(d.b), d.difference.toFixed(1)]),
    });
  };

  kravl.pictures = (setting, one, other) => {
    const kept = setting.pictures;
    const title = "Pictures that one gets right and the other wrong";
    const given = { title, full: true };
    if (!kept)
      return figure("pictures", {
        ...given,
        caption: "",
        chart: none(
          "No pictures: the runs have no predictions, or their data set was not available when this page was written.",
        ),
      });
    if (!kept.methods.includes(one) || !kept.methods.includes(other))
      return figure("pictures", {
        ...given,
        caption: "",
        chart: none(`Not both methods have predictions at ${kept.shots} images per class.`),
      });
    const item = (image) =>
      element(
        "li",
        {},
        element("img", { src: image.source, alt: `A test picture of ${setting.classes[image.label]}` }),
        element("b", {}, setting.classes[image.label] ?? ""),
        ...[one, other].flatMap((method) => {
          const [said, sure] = image.says[method];
          const mark = said === image.label ? "✓" : "✗";
          return [element("br"), `${mark} ${nameOf(method)}: ${setting.classes[said] ?? said} (${Math.round(100 * sure)} %)`];
        }),
      );
    const rows = [
      [one, other],
      [other, one],
    ]
      .filter(([a, b]) => a !== b)
      .map(([a, b]) => {
        const found = kept.images
          .filter((image) => image.says[a][0] === image.label && image.says[b][0] !== image.label)
          .slice(0, 8);
        return element(
          "div",
          {},
          element(
            "h4",
            {},
            `${nameOf(a)} right, ${nameOf(b)} wrong: ${kept.counts[a][b]} images${found.length ? `, ${found.length} of them` : ""}`,
          ),
          element("ul", { class: "pictures" }, ...found.map(item)),
        );
      });
    return figure("pictures", {
      ...given,
      caption: `First seed, ${kept.shots} images per class; sampled at equal steps through the test set, not picked.`,
      chart: element("div", {}, ...rows),
    });
  };
})();
