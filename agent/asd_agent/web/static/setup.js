// Set-up: sound cards with a level, a configuration from answers, the doctor's findings, the log.
import { get, post, prefix, say } from "./page.js";
import { meter } from "./live.js";

const byId = (id) => document.getElementById(id);
const first = byId("setup").dataset.first === "true";
const form = byId("answers");
let source;

const item = (...parts) => {
  const row = document.createElement("li");
  row.className = "row";
  row.append(...parts);
  return row;
};
const element = (tag, properties) => Object.assign(document.createElement(tag), properties);

async function busy(button, work) {
  button.disabled = true;
  try { await work(); } catch (error) { say(error.message); }
  button.disabled = false;
}

byId("find").addEventListener("click", (event) => busy(event.target, async () => {
  const found = await get("/api/v1/devices");
  byId("devices").replaceChildren(...found.map((device) => {
    const choose = element("button", { type: "button", textContent: "Use this" });
    choose.addEventListener("click", () => listen(device.names[0]));
    const words = `${device.label}, ${device.channels} channel${device.channels === 1 ? "" : "s"}${device.busy_by ? `, used by ${device.busy_by}` : ""}`;
    return item(choose, element("b", { textContent: words }), element("code", { textContent: device.names[0] }));
  }));
  if (!found.length) byId("advice").textContent = "No sound card was found. Plug one in, or use a folder of recordings.";
}));

function listen(name) {
  form.elements.source.value = name;
  source?.close();
  source = new EventSource(`${prefix}/live-level?source=${encodeURIComponent(name)}`);
  source.onerror = () => source.close();
  source.onmessage = (message) => {
    const heard = JSON.parse(message.data);
    byId("meter").hidden = Boolean(heard.error);
    byId("advice").textContent = heard.error ?? (heard.advice ? `The level is ${heard.advice}.` : "The level is fine.");
    if (!heard.error) meter(document, heard.rms_dbfs);
  };
}

function answers() {
  const f = form.elements, number = (field) => (field.value === "" ? null : Number(field.value));
  return {
    agent: f.agent.value, machine: f.machine.value, source: f.source.value, channel: number(f.channel) ?? 0,
    broker: f.broker.value || null, username: f.username.value || null, rpm: number(f.rpm), state_dir: f.state_dir.value,
  };
}

byId("look").addEventListener("click", (event) => busy(event.target, async () => {
  const made = await post("/api/v1/configuration?look", answers());
  byId("text").textContent = made.text;
  byId("text").hidden = false;
}));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!first) return;
  try {
    const made = await post("/api/v1/configuration", answers());
    source?.close();
    say(`Wrote ${made.path}. Start the agent: asd-agent run -c ${made.path}`);
    setTimeout(wait, 1500);
  } catch (error) { say(error.message); }
});

// The page starts anew with the configuration that it has written.
async function wait() {
  try {
    const answer = await fetch(`${prefix}/healthz`);
    if ((await answer.json()).daemon) { location.href = `${prefix}/`; return; }
  } catch { /* not yet */ }
  setTimeout(wait, 500);
}

const SIGNS = { ok: ["good", "✓"], warn: ["warn", "!"], fail: ["bad", "✕"] };
byId("check")?.addEventListener("click", (event) => busy(event.target, async () => {
  byId("findings").replaceChildren(item("Checking; this takes some seconds …"));
  const found = await get("/api/v1/doctor");
  byId("findings").replaceChildren(...found.map(({ grade, what, words }) => {
    const [tone, sign] = SIGNS[grade];
    return item(element("span", { className: `badge ${tone}`, textContent: `${sign} ${grade}` }), element("b", { textContent: what }), element("span", { className: "why", textContent: words }));
  }));
}));

async function lines() {
  const found = await get("/api/v1/log");
  byId("lines").textContent = found.join("\n") || "Nothing yet.";
  byId("lines").scrollTop = byId("lines").scrollHeight;
}
byId("again")?.addEventListener("click", (event) => busy(event.target, lines));
if (!first) lines().catch((error) => { byId("lines").textContent = error.message; });
