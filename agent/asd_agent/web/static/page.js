// What every page does: live values, times in the browser's zone, requests with the CSRF token.
const meta = (name) => document.querySelector(`meta[name=${name}]`).content;
export const prefix = meta("prefix");

export async function get(path) {
  const answer = await fetch(prefix + path, { headers: { accept: "application/json" } });
  return unpack(answer);
}

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json", accept: "application/json", "x-csrf-token": meta("csrf") };
  return unpack(await fetch(prefix + path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function unpack(answer) {
  const data = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(data.error);
  return data;
}

// Said to everybody, also to a screen reader.
let silence;
export function say(words) {
  const box = document.getElementById("said");
  box.textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => { box.textContent = ""; }, 6000);
}

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const stamp = (utcS) => new Date(1000 * utcS).toISOString();
export const seconds = (time) => Date.parse(time) / 1000; // since 1970, of an RFC 3339 time
export const local = (utcS) => zone.format(new Date(1000 * utcS));
export function times(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    element.textContent = zone.format(new Date(element.dateTime));
  }
}

function update(card) {
  for (const root of document.querySelectorAll(`[data-card="${CSS.escape(card.id)}"]`)) {
    for (const field of root.querySelectorAll("[data-f]")) {
      const value = String(card[field.dataset.f] ?? "").replaceAll("_", " ");
      if (field.textContent !== value) field.textContent = value;
    }
    if (root.matches(".card")) root.className = `card ${card.tone}`;
    root.dataset.tone = card.tone;
    const badge = root.querySelector("[data-badge]");
    if (badge) badge.className = `badge ${card.tone}`;
    const dot = root.querySelector("[data-chain]");
    if (dot) dot.className = `dot ${card.chain_tone}`;
    sparkline(root.querySelector(".spark"), card);
    const since = root.querySelector("[data-since]");
    if (since) since.textContent = card.spark.since;
    lastAlarm(root.querySelector("[data-alarm]"), card);
    const progress = root.querySelector("[data-calibrating]");
    if (progress) {
      progress.hidden = card.calibrating === null;
      progress.querySelector("progress").value = card.calibrating ?? 0;
    }
  }
}

function sparkline(svg, card) {
  if (!svg) return;
  svg.setAttribute("aria-label", card.spark.words);
  svg.querySelector("path").setAttribute("d", card.spark.path);
  const line = svg.querySelector(".limit");
  line.setAttribute("visibility", card.spark.limit === null ? "hidden" : "visible");
  for (const y of ["y1", "y2"]) line.setAttribute(y, card.spark.limit ?? 0);
}

function lastAlarm(link, card) {
  if (!link || !card.last_alarm_id) return;
  const href = `${prefix}/machines/${card.id}/alarms/${card.last_alarm_id}`;
  if (link.getAttribute("href") === href) return;
  link.href = href;
  const time = document.createElement("time");
  time.dateTime = card.last_alarm;
  link.replaceChildren(time);
  times(link);
}

function follow() {
  const source = new EventSource(`${prefix}/events`);
  const lost = document.getElementById("lost");
  source.onopen = () => { lost.hidden = true; };
  source.onerror = () => { lost.hidden = false; };
  source.onmessage = (message) => {
    const told = JSON.parse(message.data);
    told.cards.forEach(update);
    if (told.alarm) say(told.alarm);
    document.dispatchEvent(new CustomEvent("told", { detail: told }));
  };
  addEventListener("pagehide", () => source.close());
}

times();
document.querySelector("[data-logout]")?.addEventListener("click", async () => {
  await post("/logout");
  location.href = `${prefix}/login`;
});
if (document.querySelector("[data-live]")) follow();
