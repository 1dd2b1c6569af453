// Sort and filter tables, copy commands, open what is read for print. Without it a page still shows all.
// Columns are sorted by the number in data-key, else by the text; missing values stay at the end.
"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = head.cellIndex, old = head.getAttribute("aria-sort");
    const up = old ? old === "descending" : head.dataset.first === "up";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const sign = up ? 1 : -1;
    const key = (row) => row.cells[column].dataset.key;
    const text = (row) => row.cells[column].textContent;
    const compare = (a, b) => {
      if (key(a) === undefined && key(b) === undefined)
        return sign * text(a).localeCompare(text(b), "en");
      if (key(a) === undefined || key(b) === undefined) return key(a) === undefined ? 1 : -1;
      return sign * (key(a) - key(b));
    };
    body.append(...[...body.rows].sort(compare));
  });
}
for (const region of document.querySelectorAll("[data-filter]")) {
  const line = document.createElement("div"), box = document.createElement("input");
  const found = document.createElement("output");
  const rows = [...region.querySelector("tbody").rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  line.className = "filter";
  box.type = "search";
  box.placeholder = "Filter " + region.dataset.filter;
  box.setAttribute("aria-label", box.placeholder);
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); });
    const left = rows.filter((row) => !row.hidden).length;
    found.textContent = wanted ? left + " of " + rows.length : "";
  });
  line.append(box, found);
  region.before(line);
}
for (const code of document.querySelectorAll(".code")) {
  const button = document.createElement("button"), pre = code.querySelector("pre");
  button.type = "button";
  button.className = "copy";
  button.setAttribute("aria-live", "polite");
  button.textContent = "Copy";
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(pre);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  button.addEventListener("click", async () => {
    let done = false;
    try {
      await navigator.clipboard.writeText(pre.textContent);
      done = true;
    } catch {
      select();
      try { done = document.execCommand("copy"); } catch { done = false; }
    }
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  });
  code.prepend(button);
}
const opened = [];
const open = () => {
  for (const one of document.querySelectorAll("section:not(#set-up) > details:not([open])")) {
    one.open = true;
    opened.push(one);
  }
};
const close = () => { for (const one of opened.splice(0)) one.open = false; };
addEventListener("beforeprint", open);
addEventListener("afterprint", close);
matchMedia("print").addEventListener("change", (event) => event.matches ? open() : close());
