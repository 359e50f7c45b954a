"use strict";
// The selection, and redrawing when it or the width changes.
(() => {
  const { element, data, methods, ZERO } = kravl;
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const THEMES = ["system", "light", "dark"];
  const state = { setting: 0, shots: null, hidden: new Set(), logit: true, set: "test", one: null, other: null };
  let printing = false;

  state.change = (name, value) => {
    state[name] = value;
    const focused = document.activeElement?.id;
    draw();
    if (focused) byId(focused)?.focus();
  };

  function width(full) {
    const whole = printing ? 1000 : byId("figures").clientWidth;
    return full || (!printing && matchMedia("(max-width: 60rem)").matches) ? whole : Math.floor((whole - 32) / 2);
  }

  const setting = () => data.settings[state.setting];
  const shown = () => setting().groups.filter((group) => !state.hidden.has(group.method));
  const ofShots = () => shown().filter((group) => group.method === ZERO || group.shots === state.shots);

  function fill(select, values, chosen) {
    select.replaceChildren(
      ...values.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))),
    );
  }

  function choose() {
    const amounts = [
      ...new Map(
        setting()
          .groups.filter((g) => g.method !== ZERO)
          .map((g) => [g.shots, g.order ?? Infinity]),
      ),
    ];
    const ordered = amounts.sort((a, b) => b[1] - a[1]).map(([amount]) => amount);
    if (!ordered.includes(state.shots)) state.shots = ordered[0] ?? "0";
    fill(
      byId("shots"),
      ordered.map((amount) => [amount, amount]),
      state.shots,
    );
    const here = [...new Set(setting().groups.map((g) => g.method))];
    const best = setting().groups.filter((g) => g.shots === state.shots && g.method !== ZERO && g.stats[kravl.ID]);
    best.sort((a, b) => b.stats[kravl.ID][0] - a.stats[kravl.ID][0]);
    const first = [...new Set([...best.map((g) => g.method), ...here])];
    if (!here.includes(state.one)) state.one = first[0];
    if (!here.includes(state.other) || state.other === state.one)
      state.other = first.find((m) => m !== state.one) ?? first[0];
    for (const side of ["one", "other"])
      fill(
        byId(side),
        here.map((m) => [m, kravl.nameOf(m)]),
        state[side],
      );
    for (const label of byId("methods").children) label.hidden = !here.includes(label.dataset.method);
  }

  function draw() {
    const groups = ofShots();
    const half = width(false);
    byId("figures").replaceChildren(
      kravl.againstShots(setting(), shown(), width(true)),
      kravl.scatter(setting(), groups, half, state),
      kravl.onEachSet(setting(), groups, half),
      kravl.againstCost(groups, "trainable_parameters", "Accuracy against trainable parameters", half, "log"),
      kravl.againstCost(groups, "effective_rank", "Accuracy against effective rank of the update", half, "linear"),
      kravl.learningCurves(groups, width(true)),
      kravl.calibration(groups, width(true), state),
    );
    const all = setting().groups.filter((group) => group.method === ZERO || group.shots === state.shots);
    const [one, other] = [state.one, state.other].map((method) => all.find((group) => group.method === method));
    byId("pair-figures").replaceChildren(
      kravl.classDifferences(setting(), one, other, width(true)),
      kravl.pictures(setting(), state.one, state.other),
    );
  }

  function theme(name) {
    if (name === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = name;
    byId("theme").textContent = `Theme: ${name}`;
  }

  byId("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? "system";
    theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  });
  fill(
    byId("setting"),
    data.settings.map((each, i) => [i, each.name.join(" · ")]),
    0,
  );
  byId("setting").addEventListener("change", (event) => {
    state.setting = Number(event.target.value);
    choose();
    draw();
  });
  byId("shots").addEventListener("change", (event) => state.change("shots", event.target.value));
  for (const side of ["one", "other"])
    byId(side).addEventListener("change", (event) => state.change(side, event.target.value));
  byId("methods").append(
    ...d3.sort(methods, (m) => kravl.nameOf(m).toLowerCase()).map((method) => {
      const box = element("input", { type: "checkbox" });
      box.checked = true;
      box.addEventListener("change", () => {
        state.hidden[box.checked ? "delete" : "add"](method);
        draw();
      });
      return element("label", { "data-method": method }, box, kravl.sample(method), kravl.nameOf(method));
    }),
  );
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  byId("theme").hidden = byId("charts").hidden = byId("pair").hidden = false;
  choose();
  draw();

  let waiting = 0;
  let last = byId("figures").clientWidth;
  new ResizeObserver(() => {
    const now = byId("figures").clientWidth;
    if (now === last || printing) return;
    last = now;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 120);
  }).observe(byId("figures"));
  addEventListener("beforeprint", () => {
    printing = true;
    draw();
  });
  addEventListener("afterprint", () => {
    printing = false;
    draw();
  });
})();
