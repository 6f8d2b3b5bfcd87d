// The A/B player: the alarm's clip and the nearest normal sounds, equally loud, each with its spectrogram; and what a
// person does about the alarm.
import { get, local, post, say, seconds } from "./page.js";
import { loudest, paint, power, row } from "./spectrogram.js";

const TARGET_DBFS = -23, MOST_GAIN_DB = 40, STEP_S = 0.5;

class Side {
  constructor(root, player) {
    Object.assign(this, { root, player, canvas: root.querySelector("canvas"), clock: root.querySelector("[data-time]"), at: 0 });
    this.canvas.addEventListener("pointerdown", (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.seek((this.seconds * (event.clientX - box.left)) / box.width);
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  async load(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error((await answer.json()).error);
    this.buffer = await this.player.context.decodeAudioData(await answer.arrayBuffer());
    const samples = this.buffer.getChannelData(0);
    this.spectra = power(samples, this.canvas.width);
    let sum = 0;
    for (const x of samples) sum += x * x;
    this.dbfs = 10 * Math.log10(sum / samples.length + 1e-12);
    this.at = Math.min(this.start ?? 0, this.seconds);
    this.canvas.setAttribute("aria-valuemax", this.seconds.toFixed(1));
  }

  get seconds() { return this.buffer?.duration ?? 0; }

  key(event) {
    const moves = { ArrowLeft: -STEP_S, ArrowRight: STEP_S, Home: -1e9, End: 1e9 };
    if (event.key === " ") this.player.toggle(this);
    else if (event.key in moves) this.seek(this.now() + moves[event.key]);
    else return;
    event.preventDefault();
  }

  now() {
    if (!this.node) return this.at;
    const passed = this.at + this.player.context.currentTime - this.began;
    return this.node.loop ? passed % this.seconds : Math.min(passed, this.seconds);
  }

  seek(seconds) {
    const playing = Boolean(this.node);
    this.stop();
    this.at = Math.min(Math.max(seconds, 0), Math.max(this.seconds - 0.05, 0));
    if (playing) this.play();
    this.mark();
  }

  play() {
    const { context } = this.player;
    const gain = new GainNode(context, { gain: this.player.matched ? 10 ** (Math.min(TARGET_DBFS - this.dbfs, MOST_GAIN_DB) / 20) : 1 });
    this.node = new AudioBufferSourceNode(context, { buffer: this.buffer, loop: this.player.loops });
    this.node.connect(gain).connect(context.destination);
    const mine = this.node;
    mine.onended = () => { if (this.node === mine) { this.at = 0; this.stop(); this.player.show(); } };
    this.began = context.currentTime;
    mine.start(0, this.at);
  }

  stop() {
    if (!this.node) return;
    this.at = this.now();
    const node = this.node;
    this.node = undefined;
    node.stop();
  }

  draw(topHz, peak) {
    const plain = document.createElement("canvas");
    [plain.width, plain.height] = [this.canvas.width, this.canvas.height];
    paint(plain, this.spectra, this.buffer.sampleRate, topHz, peak);
    this.frame?.(plain, topHz);
    this.plain = plain;
    this.mark();
  }

  mark() {
    if (!this.plain) return;
    const context = this.canvas.getContext("2d"), now = this.now();
    context.drawImage(this.plain, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect((now / this.seconds) * this.canvas.width - 1, 0, 2, this.canvas.height);
    this.clock.textContent = `${now.toFixed(1)} of ${this.seconds.toFixed(1)} s`;
    this.canvas.setAttribute("aria-valuenow", now.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", `${now.toFixed(1)} seconds`);
  }
}

class Player {
  constructor(root) {
    this.root = root;
    this.sound = JSON.parse(root.dataset.sound);
    this.context = new AudioContext();
    this.sides = Object.fromEntries([...root.querySelectorAll("[data-side]")].map((e) => [e.dataset.side, new Side(e, this)]));
    this.sides.alarm.frame = (canvas, topHz) => this.voted(canvas, topHz);
    this.sides.alarm.start = Math.max(this.sound.alarm_s - 5, 0);
    this.select = root.querySelector("[data-normals]");
    this.select.addEventListener("change", () => this.normal(Number(this.select.value)));
    for (const button of root.querySelectorAll("[data-play]")) button.addEventListener("click", () => this.toggle(this.sides[button.dataset.play]));
    root.querySelector("[data-switch]").addEventListener("click", () => this.switch());
    for (const box of root.querySelectorAll("input")) box.addEventListener("change", () => this.again());
  }

  get matched() { return this.root.querySelector("[data-match]").checked; }
  get loops() { return this.root.querySelector("[data-loop]").checked; }
  get playing() { return Object.values(this.sides).find((side) => side.node); }

  async open() {
    await this.sides.alarm.load(`${this.sound.url}/sound`);
    this.paint();
    this.show();
    const verdict = this.root.querySelector("[data-verdict]");
    try {
      const again = await get(this.root.dataset.api.slice(document.querySelector("meta[name=prefix]").content.length));
      verdict.textContent = [again.verdict, again.silent].filter(Boolean).join(" ");
      this.select.replaceChildren(...again.normals.map((n, i) => new Option(`${i + 1}: ${local(seconds(n.time))}`, i)));
      if (again.normals.length) await this.normal(0);
    } catch (error) { verdict.textContent = error.message; }
  }

  async normal(number) {
    const side = this.sides.normal;
    side.stop();
    await side.load(`${this.sound.url}/normal-${number}`);
    side.root.hidden = false;
    this.paint();
    this.show();
  }

  paint() {
    const sides = Object.values(this.sides).filter((side) => side.spectra);
    const topHz = Math.min(this.sound.rate_hz, ...sides.map((side) => side.buffer.sampleRate)) / 2;
    const peak = Math.max(...sides.map((side) => loudest(side.spectra)));
    for (const side of sides) side.draw(topHz, peak);
  }

  voted(canvas, topHz) {
    const context = canvas.getContext("2d"), x = (s) => (s / this.sides.alarm.seconds) * canvas.width;
    const top = this.sound.high_hz ? row(Math.min(this.sound.high_hz, topHz), canvas.height, topHz) : 2;
    const bottom = this.sound.low_hz ? row(this.sound.low_hz, canvas.height, topHz) : canvas.height - 2;
    context.strokeStyle = "#00dcff";
    context.lineWidth = 2;
    for (const w of this.sound.spans.filter((w) => w.voted)) context.strokeRect(x(w.start_s), top, x(w.end_s) - x(w.start_s), Math.max(bottom - top, 4));
    context.setLineDash([5, 4]);
    context.strokeStyle = "#fff";
    context.beginPath();
    context.moveTo(x(this.sound.alarm_s), 0);
    context.lineTo(x(this.sound.alarm_s), canvas.height);
    context.stroke();
  }

  toggle(side) {
    const was = this.playing;
    was?.stop();
    if (was !== side && side.buffer) {
      this.context.resume();
      side.play();
      this.run();
    }
    this.last = side;
    this.show();
  }

  switch() {
    const { alarm, normal } = this.sides, now = this.playing ?? this.last ?? normal;
    this.toggle(now === alarm ? normal : alarm);
  }

  again() {
    const side = this.playing;
    if (side) { side.stop(); side.play(); }
  }

  run() {
    const side = this.playing;
    if (!side) return;
    side.mark();
    requestAnimationFrame(() => this.run());
  }

  show() {
    for (const [name, side] of Object.entries(this.sides)) {
      const button = this.root.querySelector(`[data-play=${name}]`);
      button.disabled = !side.buffer;
      button.textContent = `${side.node ? "❚❚" : "▶"} ${name === "alarm" ? "A: alarm" : "B: normal"}`;
      side.root.classList.toggle("playing", Boolean(side.node));
    }
    this.root.querySelector("[data-switch]").disabled = !this.sides.normal.buffer;
    this.root.dataset.playing = this.playing ? this.playing.root.dataset.side : "";
  }
}

const root = document.getElementById("player");
if (root) new Player(root).open().catch((error) => say(error.message));

const form = document.getElementById("act");
async function act(verb, more = {}) {
  const body = Object.fromEntries(["by", "reason"].map((k) => [k, form.elements[k]?.value ?? ""]));
  try {
    const done = await post(`/api/v1/machines/${encodeURIComponent(form.dataset.machine)}/${verb}`, { ...body, ...more });
    say(String(done.said));
    setTimeout(() => location.reload(), 700);
  } catch (error) { say(error.message); }
}
form?.addEventListener("submit", (event) => event.preventDefault());
form?.addEventListener("click", (event) => {
  const { do: verb, mark, on } = event.target.dataset;
  if (verb === "shelve") act(verb, { minutes: Number(form.elements.minutes.value) });
  else if (verb === "out_of_service") act(verb, { on: on === "true" });
  else if (verb) act(verb);
  if (mark) act("mark", { alarm_id: form.dataset.alarm, verdict: mark });
});
