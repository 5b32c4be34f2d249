// Sorting and filtering of the tables, and what is folded opens where a link leads. Without it everything can be read.
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
// A case is looked for by all that the page calls it: heading, shared parts, model, path, and what its row says.
const tools = document.getElementById("tools");
const named = [...document.querySelectorAll("table.headline tr[data-case]")];
if (tools && named.length > 5) {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "show cases with these words";
  field.setAttribute("aria-label", field.placeholder);
  const said = document.createElement("output");
  tools.append(field, said);
  const texts = new Map();
  for (const row of named) {
    const group = row.parentElement.querySelector(".group");
    const parts = [row.closest(".task").dataset.words, row.dataset.words, group ? group.textContent : "", row.textContent];
    texts.set(row.dataset.case, parts.join(" ").toLowerCase());
  }
  const left = (part) => part.querySelector("[data-case]:not([hidden])") !== null;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = new Set([...texts.keys()].filter((name) => words.every((word) => texts.get(name).includes(word))));
    for (const part of document.querySelectorAll("[data-case]")) part.hidden = !found.has(part.dataset.case);
    // what has no case left goes with its heading and notes
    for (const group of document.querySelectorAll(".group")) group.hidden = !left(group.parentElement);
    for (const table of document.querySelectorAll(".task .scroll")) table.hidden = !left(table);
    for (const part of document.querySelectorAll(".task, .cases")) part.hidden = !left(part);
    for (const note of document.querySelectorAll(".notes li")) {
      const marks = [...document.querySelectorAll("a.note")].filter((mark) => mark.hash === "#" + note.id);
      note.hidden = marks.every((mark) => mark.closest("[hidden]"));
    }
    said.textContent = words.length === 0 ? "" : found.size === 0 ? "no case matches" : `${found.size} of ${texts.size} cases`;
  });
}
const open = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
addEventListener("hashchange", open);
open();
