// Calibration by clicks.
import { get, post, say } from "./page.js";

const root = document.getElementById("calibrate");
const api = `/api/v1/machines/${encodeURIComponent(root.dataset.machine)}`;
const running = document.getElementById("running");
const PHASES = { listening: "Listening", fitting: "Working out the baseline" };
const EVERY_MS = 1000;

async function send(verb, body) {
  try {
    const done = await post(`${api}/${verb}`, body);
    if (typeof done.said === "string") say(done.said);
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

const reload = () => setTimeout(() => location.reload(), 600);

document.getElementById("start")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target.elements;
  const body = { promote: form.promote.checked };
  if (form.from.value === "live") body.duration_s = Number(form.duration.value);
  else body.paths = [form.path.value];
  if (form.extend?.checked) Object.assign(body, { extend: true, name: form.name.value });
  if (await send("calibrate", body)) watch(true);
});

for (const form of root.querySelectorAll("form[data-verb]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = {};
    if (form.dataset.verb === "extend") body.name = form.elements.name.value;
    if (form.dataset.verb === "calibrate_without") {
      body.outliers = [...form.elements.outlier.length ? form.elements.outlier : [form.elements.outlier]].filter((box) => box.checked).map((box) => Number(box.value));
      if (!body.outliers.length) { say("Choose at least one outlier."); return; }
    }
    if (await send(form.dataset.verb, body)) reload();
  });
}

running.querySelector("[data-cancel]")?.addEventListener("click", () => send("cancel_calibration", {}));

// Until it ends; `mine`: it was started here, so its end is news.
async function watch(mine) {
  let state;
  try { state = await get(`${api}/calibration`); } catch { return; }
  if (!state) return;
  const active = state.phase in PHASES;
  running.hidden = !active && !mine;
  if (running.hidden) return;
  running.querySelector("[data-phase]").textContent = PHASES[state.phase] ?? "Ended";
  running.querySelector("progress").value = state.done;
  running.querySelector("[data-words]").textContent = state.error
    || `${Math.round(100 * state.done)} %: ${state.windows} windows, ${state.not_assessable} of them cannot be used`;
  if (active) setTimeout(() => watch(true), EVERY_MS);
  else if (state.phase === "done") reload();
  else say(state.phase === "failed" ? `The calibration failed: ${state.error}` : "The calibration was cancelled.");
}

const compare = document.getElementById("compare");
if (compare) {
  get(`${api}/comparison`).then(
    (found) => { compare.textContent = `The candidate ${found.line}. Advice: ${found.advice}.`; },
    (error) => { compare.textContent = error.message; });
}
watch(false);
