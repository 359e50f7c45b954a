"use strict";
// The result table: sorted by the buttons in its header, filtered by the controls above it.
(() => {
  const table = document.getElementById("table");
  const filters = document.getElementById("filters");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  // found by either name: that of papers, and that of settings
  const texts = rows.map((row) => `${row.textContent} ${row.dataset.method}`.toLowerCase());
  const isText = heads.map((head) => !head.classList.contains("number"));

  function compare(a, b, column) {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.order);
    if (x === "" || y === "") return (x === "") - (y === "");
    return isText[column] ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
  }

  function sort(column) {
    const direction = heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const empty = (row) => row.cells[column].dataset.order === "";
    // missing values stay last in either direction
    const sorted = [...rows].sort((a, b) => (empty(a) || empty(b) ? 1 : sign) * compare(a, b, column));
    body.append(...sorted);
  }

  function filter() {
    const chosen = [...filters.querySelectorAll("select")].filter((select) => select.value !== "");
    const words = document.getElementById("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits = chosen.every(
        (select) => row.getAttribute(`data-${select.dataset.filter.replace(" ", "-")}`) === select.value,
      );
      row.hidden = !(fits && words.every((word) => texts[i].includes(word)));
      shown += !row.hidden;
    });
    document.getElementById("shown").textContent = `${shown} of ${rows.length} rows`;
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });
  filters.addEventListener("input", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.hidden = false;
  filter();
})();
