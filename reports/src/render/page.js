// Sorting and filtering of the tables, and what is folded opens on paper and where a link leads. Without it everything can be read.
"use strict";
for (const table of document.querySelectorAll("table.headline")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const key = (row) => {
        const cell = row.cells[column];
        if (column === 0) return cell.textContent;
        return cell && cell.dataset.value !== undefined ? Number(cell.dataset.value) : null;
      };
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          return sign * (column === 0 ? x.localeCompare(y, "en", { numeric: true }) : x - y);
        });
        body.append(...rows);
      }
    });
  });
}
const tools = document.getElementById("tools");
if (tools && document.querySelectorAll("table.headline tbody tr").length > 5) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "show cases with these words";
  field.setAttribute("aria-label", field.placeholder);
  tools.append(field);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const body of document.querySelectorAll("table.headline tbody")) {
      const group = body.querySelector(".group");
      const name = group ? group.textContent.toLowerCase() : "";
      let shown = 0;
      for (const row of body.rows) {
        if (row === group) continue;
        const text = name + " " + row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      if (group) group.hidden = shown === 0;
    }
    for (const details of document.querySelectorAll("details[id^=case-]")) {
      const text = details.firstElementChild.textContent.toLowerCase();
      details.hidden = !words.every((word) => text.includes(word));
    }
  });
}
const open = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
addEventListener("hashchange", open);
open();
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
