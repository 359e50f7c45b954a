"use strict";
// Files are sent one after the other and kept by the browser alone, so that they can be scored again at another share.
(async () => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const THEMES = ["system", "light", "dark"];
  const cards = []; // {node, file, said, failed}
  let queue = [];
  let current = null; // the request that is under way

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  const answer = await fetch("run");
  const run = await answer.json();
  const share = () => Number(byId("alpha").value);
  const first = (side) => side?.classes?.[0];
  const differs = ({ zero_shot: zero, adapted }) => first(zero) && first(adapted) && first(zero) !== first(adapted);

  byId("run").textContent = `${run.run}: ${run.model}`;
  byId("classes").hidden = false;
  byId("classes").firstElementChild.textContent = counted(run.class_names.length, "class", "classes");
  byId("classes").lastElementChild.textContent = run.class_names.join(", ");
  byId("alpha").min = run.zero_shot ? 0 : 0.01;
  byId("alpha").value = run.alpha;
  byId("curve").hidden = !run.curve;
  byId("top").max = Math.min(20, run.class_names.length);
  byId("top").value = Math.min(run.shown, run.class_names.length);
  for (const id of ["looks", "attending"]) byId(id).hidden = !run.attention;
  byId("notes").textContent = [
    run.zero_shot ? "" : "The model knows no class without training: there is no zero-shot side.",
    run.curve ? "" : `The run has no WiSE-FT curve: the adapted side is at α = ${run.alpha}.`,
    run.attention ? "" : `No attention is shown: the image tower (${run.tower}) pools without a class token or a query.`,
  ]
    .filter(Boolean)
    .join(" ");

  // blue where little is looked at, over red, to yellow at the map's own largest value
  const COLOURS = [
    [20, 30, 120, 110],
    [200, 40, 60, 140],
    [255, 230, 60, 180],
  ];

  function colour(value) {
    const place = value * (COLOURS.length - 1);
    const i = Math.min(Math.floor(place), COLOURS.length - 2);
    return COLOURS[i].map((from, c) => from + (place - i) * (COLOURS[i + 1][c] - from));
  }

  function overlay(rows, model) {
    const values = rows.flat();
    const largest = Math.max(...values) || 1;
    const at = values.indexOf(Math.max(...values));
    const third = (place, count, names) => names[Math.min(2, Math.floor((3 * (place + 0.5)) / count))];
    const vertical = third(Math.floor(at / rows[0].length), rows.length, ["top", "middle", "bottom"]);
    const horizontal = third(at % rows[0].length, rows[0].length, ["left", "centre", "right"]);
    const label = `Attention of the ${model} model, strongest at the ${vertical} ${horizontal}`;
    const canvas = element("canvas", { width: rows[0].length, height: rows.length, role: "img", "aria-label": label });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(rows[0].length, rows.length);
    values.forEach((value, i) => pixels.data.set(colour(value / largest), 4 * i));
    context.putImageData(pixels, 0, 0);
    canvas.title = label;
    return canvas;
  }

  function picture(source, alternative, ...over) {
    return element("div", { class: "look" }, element("img", { src: source, alt: alternative }), ...over);
  }

  function bars(said) {
    if (said.error) return element("p", { class: "problem" }, said.error);
    const shown = Math.min(Number(byId("top").value) || run.shown, said.classes.length);
    return element(
      "ol",
      {},
      ...said.classes.slice(0, shown).map((name, i) => {
        const bar = element("i");
        bar.style.width = `${100 * said.probabilities[i]}%`;
        return element(
          "li",
          { "data-probability": said.probabilities[i] },
          element("span", {}, name),
          element("span", {}, percent(said.probabilities[i])),
          element("span", { class: "bar", "aria-hidden": "true" }, bar),
        );
      }),
    );
  }

  function side(title, kind, said, image) {
    const look = said.attention ? [picture(image, "", overlay(said.attention, title.toLowerCase()))] : [];
    const list = said.classes ? [bars(said)] : [];
    const layout = look.length && list.length ? "side" : "side plain";
    return element(
      "section",
      { class: kind },
      element("h3", {}, title),
      element("div", { class: layout }, ...look, ...list),
    );
  }

  function draw(card) {
    const { node, said, name } = card;
    const remove = element("button", { type: "button", "aria-label": `Remove ${name}` }, "×");
    remove.addEventListener("click", () => {
      queue = queue.filter((each) => each !== card);
      cards.splice(cards.indexOf(card), 1);
      node.remove();
      byId("results").focus();
      tell();
    });
    const mark = element("span");
    node.replaceChildren(element("header", {}, element("h2", {}, name), mark, remove));
    node.classList.toggle("waiting", queue.includes(card) || card === current?.card);
    node.classList.toggle("failed", Boolean(card.failed));
    node.classList.toggle("differs", Boolean(said && !card.failed && differs(said)));
    if (card.failed) {
      node.append(element("p", {}, card.failed));
    } else if (said) {
      const before = said.zero_shot?.classes;
      mark.textContent = !before ? "" : differs(said) ? "They disagree" : "They agree";
      const title = said.alpha === 1 ? "Adapted" : `Adapted, α = ${said.alpha}`;
      const models = [side(title, "adapted", said.adapted, said.image)];
      if (said.zero_shot) models.unshift(side(before ? "Zero-shot" : "Pretrained", "zero", said.zero_shot, said.image));
      node.append(element("div", { class: "models" }, picture(said.image, `${name}, as the model sees it`), ...models));
    } else {
      mark.textContent = "waiting";
    }
  }

  function tell() {
    const done = cards.filter((card) => card.said && !card.failed && !queue.includes(card) && card !== current?.card);
    const failed = cards.filter((card) => card.failed).length;
    const left = queue.length + (current ? 1 : 0);
    const parts = [counted(done.length, "image")];
    if (run.zero_shot) parts.push(`the models disagree on ${done.filter((card) => differs(card.said)).length}`);
    if (failed) parts.push(`${counted(failed, "file")} could not be scored`);
    if (left) parts.push(`${left.toLocaleString("en")} to go`);
    byId("status").textContent = cards.length ? parts.join("; ") : "";
    byId("stop").hidden = !left;
    byId("clear").hidden = !cards.length;
    byId("filter").hidden = !run.zero_shot || !cards.length;
  }

  async function score(card) {
    const query = new URLSearchParams({ name: card.name, alpha: share() });
    const stop = new AbortController();
    current = { card, stop };
    tell();
    try {
      const answered = await fetch(`score?${query}`, { method: "POST", body: card.file, signal: stop.signal });
      const json = answered.headers.get("content-type") === "application/json";
      const said = json ? await answered.json() : { error: `the server says ${answered.status}` };
      card.failed = said.error;
      if (!said.error) card.said = said;
    } catch (error) {
      if (error.name === "AbortError") card.failed = card.said ? null : "stopped";
      else card.failed = `cannot be sent: it can no longer be read, or kravl demo has ended (${error.message})`;
    }
    current = null;
    draw(card);
  }

  async function work() {
    if (current) return;
    while (queue.length) {
      const card = queue.shift();
      await score(card);
      tell();
    }
    tell();
  }

  function add(file, failed = null) {
    const node = element("article", { class: "card" });
    const card = { node, file, name: file.name, said: null, failed };
    if (file.size > run.most_bytes) {
      card.failed = `a file of more than ${Math.floor(run.most_bytes / 2 ** 20)} MiB is not read`;
    }
    cards.push(card);
    if (!card.failed) queue.push(card);
    draw(card);
    byId("results").append(node);
  }

  function take(files) {
    for (const file of files) add(file);
    work();
  }

  byId("files").addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = "";
  });
  document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    for (const item of event.dataTransfer.items) {
      const file = item.getAsFile();
      if (item.webkitGetAsEntry?.()?.isDirectory) add(file, "a folder: open it and drop the images in it");
      else if (file) add(file);
    }
    work();
  });

  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("alpha").addEventListener("input", () => (byId("share").value = share().toFixed(2)));
  byId("alpha").addEventListener("change", () => {
    queue = cards.filter((card) => card.said || queue.includes(card) || card === current?.card);
    for (const card of queue) draw(card);
    work();
  });
  byId("share").value = share().toFixed(2);
  byId("top").addEventListener("input", () => byId("top").checkValidity() && cards.forEach(draw));
  byId("attention").addEventListener("change", ({ target }) =>
    document.body.classList.toggle("no-attention", !target.checked),
  );
  byId("differing").addEventListener("change", ({ target }) =>
    document.body.classList.toggle("only-differing", target.checked),
  );
  byId("stop").addEventListener("click", () => {
    const stopped = queue;
    queue = [];
    current?.stop.abort();
    for (const card of stopped) {
      if (!card.said) card.failed = "stopped";
      draw(card);
    }
    tell();
  });
  byId("clear").addEventListener("click", () => {
    queue = [];
    current?.stop.abort();
    cards.length = 0;
    byId("results").replaceChildren();
    byId("files").focus();
    tell();
  });
  byId("theme").addEventListener("click", ({ target }) => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    target.textContent = `Theme: ${next}`;
  });
})();
