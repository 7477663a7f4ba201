"use strict";
// Sorting and filtering of every table, and the choice of light or dark. The page is complete without it.
(function () {
  function value(cell) {
    if (cell.dataset.v !== undefined) {
      const number = Number(cell.dataset.v);
      return Number.isNaN(number) ? null : number;
    }
    const text = cell.textContent.trim();
    if (text === "-" || text === "") return null;
    const number = Number(text.replace(/,/g, ""));
    return Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, undefined, { numeric: true });
  }

  function sort(table, column, header) {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => [value(row.cells[column]), row]);
    rows.sort(function (a, b) {
      // What is missing stays last, in either direction.
      if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null);
      return ascending ? compare(a[0], b[0]) : compare(b[0], a[0]);
    });
    body.append(...rows.map((row) => row[1]));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  function addFilter(holder, table) {
    const rows = Array.from(table.tBodies[0].rows);
    const tools = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    tools.className = "tools";
    input.type = "search";
    label.append("Filter ", input);
    count.setAttribute("role", "status");
    tools.append(label, count);
    holder.prepend(tools);
    function update() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = shown + " of " + rows.length + " rows";
    }
    input.addEventListener("input", update);
    update();
  }

  for (const holder of document.querySelectorAll(".table")) {
    const table = holder.querySelector("table");
    Array.from(table.tHead.rows[0].cells).forEach(function (header, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, column, header));
    });
    if (Number(holder.dataset.rows) > 6) addFilter(holder, table);
    for (const cell of table.querySelectorAll("th, td")) {
      if (!cell.title && cell.textContent.length > 30) cell.title = cell.textContent.trim();
    }
  }

  // A table that is wider than its box says so; on a phone it shows what carries the claim, and all on demand.
  function hints() {
    for (const holder of document.querySelectorAll(".table")) {
      const box = holder.querySelector(".scroll");
      let hint = holder.querySelector(".hint");
      if (!hint) {
        hint = document.createElement("p");
        hint.className = "hint";
        const text = document.createElement("span");
        const all = document.createElement("button");
        all.type = "button";
        all.textContent = "All columns";
        all.addEventListener("click", function () {
          const shown = holder.classList.toggle("all");
          all.textContent = shown ? "Fewer columns" : "All columns";
          hints();
        });
        hint.append(text, all);
        box.after(hint);
      }
      const phone = window.matchMedia("(max-width: 40rem)").matches && holder.querySelector(".more") !== null;
      const wide = box.scrollWidth > box.clientWidth + 1;
      hint.firstChild.textContent = wide ? "Scroll sideways for more columns \u2192" : "";
      hint.lastChild.hidden = !phone;
      hint.hidden = !phone && !wide;
    }
  }
  document.documentElement.classList.add("js");
  hints();
  window.addEventListener("resize", hints);

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", function () {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const contents = document.querySelector("nav details");
  if (window.matchMedia("(max-width: 60rem)").matches) contents.open = false;
})();
