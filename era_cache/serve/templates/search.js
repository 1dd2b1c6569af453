"use strict";
const $ = (id) => document.getElementById(id);
const MORE = 20;
let about = null, running = null;

// The one way in which anything reaches the page: an element with a text in it.
function make(tag, name, ...content) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...content.filter((part) => part !== null && part !== undefined));
  return element;
}
const number = (value) => value.toLocaleString("en");
const unseen = (text) => make("span", "unseen", text);

function fill(element, ...content) {
  element.replaceChildren(...content.filter((part) => part !== null));
}

function say(text, wrong = false) {
  $("status").classList.toggle("wrong", wrong);
  $("status").textContent = text;
}

async function ask(path, signal) {
  let response;
  try {
    response = await fetch(path, {signal, cache: "no-store"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  let answer;
  try { answer = await response.json(); } catch { answer = {}; }
  if (!response.ok) throw new Error(answer.error?.message || `The server answered ${response.status}.`);
  return answer;
}

function checked() {
  return [...$("candidates").querySelectorAll("input:checked")].map((box) => box.value);
}

// What is asked for, as it stands in the address.
function wanted() {
  const values = new URLSearchParams();
  if ($("id").value) values.set("id", $("id").value);
  else if ($("query").value.trim()) {
    values.set("query", $("query").value);
    if (about.instruction && $("instruction").value)
      values.set("instruction", $("instruction").value);
  } else return null;
  const usual = about.candidates.filter((c) => c.shown).map((c) => c.name);
  if (checked().join() !== usual.join()) values.set("candidates", checked().join());
  if ($("k").value !== "10") values.set("k", $("k").value);
  return values;
}

// The form as the address says.
function restore() {
  const values = new URLSearchParams(location.search);
  for (const name of ["query", "instruction", "id"]) $(name).value = values.get(name) || "";
  const named = (values.get("candidates") || "").split(",");
  const usual = !about.candidates.some((c) => named.includes(c.name));
  for (const box of $("candidates").querySelectorAll("input"))
    box.checked = usual ? box.dataset.shown === "yes" : named.includes(box.value);
  const k = values.get("k") || "10";
  if (![...$("k").options].some((option) => option.value === k)) $("k").add(new Option(k, k));
  $("k").value = k;
}

async function search(address) {
  const values = wanted();
  if (running) running.abort();
  if (values === null) {
    $("results").hidden = true;
    document.title = "ERA Cache search";
    say(address === "push" ? "Type a query first."
      : "Type a query, or take a random one whose relevant documents are known.");
    return;
  }
  if (address === "push" && location.search !== `?${values}`)
    history.pushState(null, "", `?${values}`);
  const mine = running = new AbortController();
  $("results").setAttribute("aria-busy", "true");
  say("Searching …");
  try {
    const answer = await ask(`/v1/search?${values}`, mine.signal);
    if (running === mine) show(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("results").hidden = true;
    say(error.message, true);
  }
  if (running === mine) $("results").removeAttribute("aria-busy");
}

function show(answer) {
  const asked = answer.query;
  if (asked.id !== null && $("id").value && asked.text !== null) {
    $("query").value = asked.text;
    $("instruction").value = about.instruction ? asked.instruction : "";
  }
  document.title = `${asked.text === null ? asked.id : asked.text} - ERA Cache search`;
  const parts = {test: "test query", training: "training query", validation: "validation query",
    unused: "in no part of the split"};
  // A text that is not the collection's stands in the box already.
  fill($("asked"), ...(asked.id === null ? [] : [make("span", "soft", "Query "),
    make("bdi", "id", asked.id), make("span", "soft",
      ` (${parts[asked.part]}, ${asked.relevant ? number(asked.relevant) : "nothing"} relevant) `),
    asked.text === null ? null : make("bdi", "", asked.text)]));
  $("instructions").textContent = asked.instruction ? `Instruction: ${asked.instruction}` : "";
  $("seen").textContent = ["training", "validation"].includes(asked.part)
    ? "The adapter was fitted on this query's labels: its ranking flatters what was trained." : "";
  fill($("columns"), ...answer.candidates.map((column) => columnOf(column, answer)));
  furtherDown(answer);
  const spent = answer.milliseconds;
  const encoded = spent.encode === null ? "Stored vectors"
    : `Encoded in ${spent.encode.toFixed(1)} ms`;
  const index = answer.collection.index;
  const timing = `${encoded}, searched ${number(answer.collection.documents)} documents `
    + (index === null ? "" : `through an index (${index}), which may miss some, `)
    + `in ${spent.search.toFixed(1)} ms.`;
  const stars = asked.id === null ? "" : " \u2605: relevant, with its grade.";
  const marks = answer.baseline !== null && answer.candidates.length > 1
    ? ` Arrows: places up or down from ${answer.baseline}; new: not in its list.` : "";
  $("foot").textContent = timing + stars + marks;
  $("results").hidden = false;
  const found = answer.candidates.map((column) => {
    const first = column.hits.find((hit) => hit.grade !== null && hit.grade >= 1);
    return `${column.name} ${first ? `at ${first.rank}` : "not shown"}`;
  });
  say(asked.relevant ? `First relevant document: ${found.join(", ")}.`
    : `${answer.candidates[0].hits.length} documents from each candidate.`);
}

function columnOf(column, answer) {
  const heading = make("div", "heading", make("h2", "", make("bdi", "", column.name)),
    column.chosen ? make("span", "badge", "chosen") : null,
    column.value === null ? null
      : make("span", "value", `${answer.measure} ${column.value.toFixed(3)}`));
  const list = make("ol", "", ...column.hits.map((hit) => hitOf(hit, column, answer)));
  const section = make("section", column.chosen ? "column chosen" : "column",
    make("header", "", heading, make("div", "kind", column.kind)), list);
  section.setAttribute("aria-label", column.name);
  return section;
}

function hitOf(hit, column, answer) {
  const line = make("div", "line", make("span", "rank", String(hit.rank)),
    make("bdi", "id", hit.document), markOf(hit.grade), movedOf(hit, column, answer),
    make("span", "score", unseen("score "), hit.score.toFixed(3)));
  const item = make("li", hit.grade >= 1 ? "relevant" : "", line,
    hit.text ? make("bdi", "text", hit.text) : null);
  item.dataset.document = hit.document;
  return item;
}

function markOf(grade) {
  if (grade === null) return null;
  if (grade < 1) return make("span", "badge soft", unseen("judged "), String(grade));
  const star = make("span", "", "\u2605 ");
  star.setAttribute("aria-hidden", "true");
  const mark = make("span", "badge mark", star, unseen("relevant, grade "), String(grade));
  mark.title = `relevant, grade ${grade}`;
  return mark;
}

function movedOf(hit, column, answer) {
  if (answer.baseline === null || column.name === answer.baseline) return null;
  const before = hit.baseline_rank;
  if (before === null || before > answer.depth) return make("span", "moved up", "new");
  const change = before - hit.rank;
  if (!change) return null;
  const [name, arrow, words] = change > 0 ? ["up", "\u25b2", "up "] : ["down", "\u25bc", "down "];
  const sign = make("span", "", arrow);
  sign.setAttribute("aria-hidden", "true");
  return make("span", `moved ${name}`, sign, unseen(words), String(Math.abs(change)));
}

function furtherDown(answer) {
  const entries = answer.elsewhere, table = $("elsewhere").querySelector("table");
  $("elsewhere").hidden = !entries.length;
  const names = answer.candidates.map((column) => column.name);
  const unseen = answer.collection.index === null ? `beyond ${number(answer.reach)}` : "not found";
  const head = (text) => { const cell = make("th", "", text); cell.scope = "col"; return cell; };
  fill(table.tHead, make("tr", "", ...["document", "grade", ...names].map(head)));
  const rows = entries.slice(0, MORE).map((entry) => {
    const first = make("th", "", make("bdi", "", entry.document));
    first.scope = "row";
    const places = names.map((name) => make("td", "", entry.ranks[name] === null
      ? unseen : number(entry.ranks[name])));
    return make("tr", "", first, make("td", "", String(entry.grade)), ...places);
  });
  const more = entries.length - MORE;
  if (more > 0) rows.push(make("tr", "", make("th", "", `and ${number(more)} more`)));
  fill(table.tBodies[0], ...rows);
}

// The same document in the other columns.
function point(event) {
  const item = event.type === "mouseover" ? event.target.closest("li") : null;
  for (const other of $("columns").querySelectorAll("li"))
    other.classList.toggle("same", item !== null && other !== item
      && other.dataset.document === item.dataset.document);
}

async function random() {
  try {
    const {id} = await ask("/v1/random");
    $("id").value = id;
    $("query").value = $("instruction").value = "";
    await search("push");
  } catch (error) { say(error.message, true); }
}

async function start() {
  const address = new URL(location);
  if (address.searchParams.has("token")) {  // the cookie has it now
    address.searchParams.delete("token");
    history.replaceState(null, "", address);
  }
  try { about = await ask("/v1/about"); } catch (error) { say(error.message, true); return; }
  $("collection").textContent = about.collection;
  $("about").textContent =
    `${number(about.documents)} documents, ${number(about.queries)} stored queries`;
  $("instructed").hidden = !about.instruction;
  $("wholes").hidden = !about.texts;
  $("query").maxLength = $("instruction").maxLength = about.most.query;
  if (about.models.length === 0)
    $("query").placeholder = "No model is loaded: only stored queries, word for word or by id";
  fill($("candidates"), ...about.candidates.map((candidate) => {
    const box = make("input", "");
    box.type = "checkbox";
    box.value = candidate.name;
    box.dataset.shown = candidate.shown ? "yes" : "no";
    const label = make("label", "", box, make("bdi", "", candidate.name));
    label.title = candidate.kind;
    return label;
  }));
  $("form").addEventListener("submit", (event) => { event.preventDefault(); search("push"); });
  $("query").addEventListener("input", () => { $("id").value = ""; });
  $("instruction").addEventListener("input", () => { $("id").value = ""; });
  $("id").addEventListener("input", () => { $("query").value = $("instruction").value = ""; });
  $("candidates").addEventListener("change", (event) => {
    if (!checked().length) event.target.checked = true;
    if (!$("results").hidden) search("push");
  });
  $("k").addEventListener("change", () => { if (!$("results").hidden) search("push"); });
  $("whole").addEventListener("change",
    () => $("columns").classList.toggle("whole", $("whole").checked));
  $("random").addEventListener("click", random);
  $("columns").addEventListener("mouseover", point);
  $("columns").addEventListener("mouseleave", point);
  addEventListener("popstate", () => { restore(); search("keep"); });
  restore();
  $("query").focus();
  search("keep");
}
start();
