// Score and limit over time, zoomable; detectors on demand; live sound while somebody looks.
import { get, local, say, seconds, stamp } from "./page.js";
import { look } from "./live.js";

const box = document.getElementById("plot");
const zbox = document.getElementById("zplot");
const api = `/api/v1/machines/${encodeURIComponent(box.dataset.machine)}`;
const TINTS = ["#2a78b5", "#b5682a", "#6a9a2f", "#8a55b0", "#2f9a8d", "#b04a7a"];
const STEPS = [0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 300];
const past = []; // views to go back to
let view, plot, zplot, bands = [], alarms = [], loading = 0;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function show(since, until, keep = true) {
  if (keep && view) past.push(view);
  view = [since, until];
  document.querySelector("[data-back]").disabled = past.length === 0;
  return load();
}

async function load() {
  const [since, until] = view, mine = ++loading;
  const points = Math.max(200, Math.min(1200, Math.round(box.clientWidth)));
  const query = `since=${stamp(since)}&until=${stamp(until)}`;
  try {
    const [found, episodes] = await Promise.all([
      get(`${api}/scores?${query}&points=${points}`), get(`${api}/alarms?${query}`)]);
    if (mine !== loading) return;
    [bands, alarms] = [found.bands, episodes];
    draw(found);
    if (document.getElementById("detectors").checked) await drawDetectors();
  } catch (error) { say(error.message); }
}

function draw(found) {
  const data = [found.utc_s, found.peak, found.mean, found.score_limit];
  if (plot) plot.setData(data);
  else plot = new uPlot(options(), data, box);
  const high = found.peak.filter((x) => x !== null);
  document.getElementById("summary").textContent = found.windows
    ? `${found.windows} windows; highest score ${high.length ? Math.max(...high).toFixed(2) : "–"}; ${alarms.length} alarm${alarms.length === 1 ? "" : "s"}. Drag over the plot to look closer.`
    : "No windows in this time.";
  legend();
}

function options() {
  const ink = colour("--dim"), grid = colour("--line");
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
  return {
    width: box.clientWidth, height: 280, cursor: { drag: { x: true, y: false, setScale: false } },
    scales: { x: { time: true, range: () => view }, y: { distr: 4, asinh: 1, range: (_, low, high) => [0, Math.max(1, high * 1.3)] } },
    axes: [axis, { ...axis, size: 42, splits: (u) => STEPS.filter((s) => s <= u.scales.y.max), filter: (_, splits) => splits }],
    series: [
      { label: "time" },
      { label: "highest score", stroke: colour("--plot"), width: 1.5, spanGaps: false, points: { show: false } },
      { label: "mean", stroke: colour("--plot"), width: 1, dash: [2, 3], points: { show: false }, show: false },
      { label: "limit", stroke: colour("--limit"), width: 1, dash: [6, 4], spanGaps: true, points: { show: false } },
    ],
    hooks: { drawClear: [drawBands], setSelect: [zoom] },
  };
}

function zoom(u) {
  if (u.select.width < 4) return;
  dragging = false;
  const since = u.posToVal(u.select.left, "x"), until = u.posToVal(u.select.left + u.select.width, "x");
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  if (until - since >= 10) show(since, until);
}

function drawBands(u) {
  const { ctx } = u, { left, top, width, height } = u.bbox;
  const x = (t) => Math.min(Math.max(u.valToPos(t, "x", true), left), left + width);
  ctx.save();
  for (const band of bands) {
    ctx.fillStyle = tint(band.name);
    ctx.globalAlpha = 0.16;
    ctx.fillRect(x(seconds(band.since)), top, Math.max(x(seconds(band.until)) - x(seconds(band.since)), 1), height);
  }
  ctx.fillStyle = colour("--bad");
  for (const alarm of alarms) {
    const since = x(seconds(alarm.raised)), until = x(alarm.cleared ? seconds(alarm.cleared) : view[1]);
    ctx.globalAlpha = 0.25;
    ctx.fillRect(since, top, Math.max(until - since, 2), height);
    ctx.globalAlpha = 1;
    ctx.fillRect(since, top, Math.max(until - since, 3), 4 * devicePixelRatio);
  }
  ctx.restore();
}

const UNJUDGED = { "cannot be judged": "#888", "off": "#445", "not calibrated": "#999" };
function tint(name) {
  if (UNJUDGED[name]) return UNJUDGED[name];
  const names = [...new Set(bands.map((band) => band.name))].filter((n) => !UNJUDGED[n]).sort();
  return TINTS[Math.max(names.indexOf(name), 0) % TINTS.length];
}

function legend() {
  const entry = (fill, words, alpha) => {
    const span = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = fill;
    mark.style.opacity = alpha;
    span.append(mark, words);
    return span;
  };
  const names = [...new Set(bands.map((band) => band.name))];
  document.getElementById("legend").replaceChildren(
    ...names.map((name) => entry(tint(name), name || "normal state", 0.5)), ...(alarms.length ? [entry(colour("--bad"), "alarm", 0.7)] : []));
}

async function drawDetectors() {
  const [since, until] = view;
  const found = await get(`${api}/detectors?since=${stamp(since)}&until=${stamp(until)}`);
  zplot?.destroy();
  const names = Object.keys(found.z), { axes: [axis] } = options();
  zplot = new uPlot({
    width: zbox.clientWidth, height: 220, scales: { x: { time: true, range: () => view } }, axes: [axis, { ...axis, size: 42 }],
    series: [{ label: "time" }, ...names.map((label, i) => ({ label, stroke: TINTS[i % TINTS.length], width: 1, points: { show: false } }))],
  }, [found.utc_s, ...names.map((name) => found.z[name])], zbox);
  if (!found.complete) say("Only the newest 5000 windows of this time are shown.");
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", String(other === button));
    past.length = 0;
    view = undefined;
    const now = Date.now() / 1000;
    show(now - Number(button.dataset.span), now);
  });
}
document.querySelector("[data-back]").addEventListener("click", () => { if (past.length) show(...past.pop(), false); });
document.getElementById("detectors").addEventListener("change", (event) => {
  zbox.hidden = !event.target.checked;
  if (event.target.checked) drawDetectors().catch((error) => say(error.message));
});
addEventListener("resize", () => { plot?.setSize({ width: box.clientWidth, height: 280 }); zplot?.setSize({ width: zbox.clientWidth, height: 220 }); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot?.destroy(); plot = undefined; load(); });

// New windows move the plot on while it ends at the present.
let moved = 0, dragging = false;
box.addEventListener("pointerdown", () => { dragging = true; });
addEventListener("pointerup", () => { dragging = false; });
document.addEventListener("told", () => {
  const now = Date.now() / 1000;
  if (dragging || past.length || now - moved < Math.max(2, (view[1] - view[0]) / 600)) return;
  moved = now;
  view = [view[0] + now - view[1], now];
  load();
});
addEventListener("load", () => { const now = Date.now() / 1000, first = Number(box.dataset.first) || 0;
  show(Math.max(now - 21600, Math.min(first, now - 300)), now, false);
});
look(document.getElementById("look"), document.getElementById("livepanel"));
window.describe = () => ({ view: view.map(local), bands: bands.length, alarms: alarms.length }); // for tests
