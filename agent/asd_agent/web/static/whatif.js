// Sliders over the stored history: alarms then and now.
import { get, local, prefix, seconds } from "./page.js";

const form = document.getElementById("whatif"), box = document.getElementById("answer");
const field = form.elements, QUIET_MS = 350;
const MARKS = { fault: "a fault", nothing: "nothing", "": "" };
let timer, running = false, again = false;

function reset() {
  field.budget.value = Math.log10(Number(form.dataset.budget));
  field.n.value = form.dataset.n;
  field.k.value = form.dataset.k;
}

const budget = () => Number((10 ** Number(field.budget.value)).toPrecision(2));

function words() {
  if (Number(field.k.value) > Number(field.n.value)) field.k.value = field.n.value;
  field.budgetwords.textContent = budget();
  field.votewords.textContent = field.k.value;
  field.nwords.textContent = field.n.value;
}

async function ask() {
  if (running) { again = true; return; }
  running = true;
  box.setAttribute("aria-busy", "true");
  box.querySelector("[data-words]").textContent = "Computing …";
  const query = new URLSearchParams({ since_s: field.since.value, budget: budget(), votes: `${field.k.value}/${field.n.value}` });
  try { show(await get(`/api/v1/machines/${encodeURIComponent(form.dataset.machine)}/whatif?${query}`)); }
  catch (error) { box.querySelector("[data-words]").textContent = error.message; }
  box.setAttribute("aria-busy", "false");
  running = false;
  if (again) { again = false; ask(); }
}

const count = (found) => (found.length === 1 ? "1 alarm" : `${found.length} alarms`);
const duration = (s) => (s < 100 ? `${s.toFixed(0)} s` : s < 6000 ? `${(s / 60).toFixed(0)} min` : s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} days`);

function show(tried) {
  const limit = (x) => (x === null ? "–" : x.toFixed(2));
  box.querySelector("[data-words]").textContent = `Then ${count(tried.then)}, with these settings ${count(tried.now)}.`;
  box.querySelector("[data-how]").textContent = `${tried.judged} of ${tried.windows} windows judged; a window deviates from a score of ${limit(tried.score_limit)} (as configured: ${limit(tried.configured_limit)})`
    + (tried.left_out ? `; ${tried.left_out} windows left out because their baseline is gone.` : ".");
  box.querySelector("[data-first]").textContent = local(seconds(tried.since));
  box.querySelector("[data-last]").textContent = local(seconds(tried.until));
  draw(tried);
  table(tried);
}

function draw(tried) {
  const svg = box.querySelector("svg"), [since, until] = [seconds(tried.since), seconds(tried.until)], span = Math.max(until - since, 1);
  const make = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
    if (text) element.textContent = text;
    return element;
  };
  const lanes = [["then", tried.then, 4], ["now", tried.now, 50]].flatMap(([name, found, y]) => [
    make("rect", { x: 0, y, width: 1000, height: 38, class: "lane" }),
    ...found.map((e) => {
      const x = (1000 * Math.max(seconds(e.raised) - since, 0)) / span;
      const width = Math.max((1000 * ((e.cleared ? seconds(e.cleared) : until) - seconds(e.raised))) / span, 3);
      const bar = make("rect", { x, y, width, height: 38, class: `${e.level} ${e.mark}` });
      bar.append(make("title", {}, `${name}: ${local(seconds(e.raised))}`));
      return bar;
    }),
  ]);
  svg.replaceChildren(...lanes);
  svg.toggleAttribute("hidden", false);
}

const began = (e) => seconds(e.raised);
const ended = (e) => (e.cleared ? seconds(e.cleared) : Infinity);

function table(tried) {
  const marks = Object.fromEntries(tried.then.map((e) => [e.alarm_id, e.mark]));
  const overlapping = (e) => tried.then.find((t) => began(t) <= ended(e) && began(e) <= ended(t));
  const rows = [...tried.then.map((e) => ["then", e, e.mark, e.alarm_id]), ...tried.now.map((e) => ["now", e, marks[overlapping(e)?.alarm_id] ?? "", ""])]
    .sort((a, b) => began(b[1]) - began(a[1])).slice(0, 100)
    .map(([when, e, mark, id]) => {
      const row = document.createElement("tr");
      const cells = [when, local(began(e)), e.cleared ? duration(ended(e) - began(e)) : "present", e.level, MARKS[mark]];
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      if (id) {
        const link = Object.assign(document.createElement("a"), { href: `${prefix}/machines/${form.dataset.machine}/alarms/${id}`, textContent: cells[1] });
        row.children[1].replaceChildren(link);
      }
      return row;
    });
  box.querySelector("tbody").replaceChildren(...rows);
  box.querySelector("table").hidden = rows.length === 0;
}

form.addEventListener("input", () => { words(); clearTimeout(timer); timer = setTimeout(ask, QUIET_MS); });
form.addEventListener("submit", (event) => event.preventDefault());
form.querySelector("[data-reset]").addEventListener("click", () => { reset(); words(); ask(); });
reset();
words();
ask();
