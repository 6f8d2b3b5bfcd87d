// What the microphone hears just now: level, spectrogram, and sound where the configuration allows it.
import { prefix, say } from "./page.js";
import { inferno } from "./colours.js";

const QUIET_DBFS = -90, LOUD_DBFS = 0, RANGE_DB = 60, FORGET_DB = 0.1;

export function look(button, panel) {
  const canvas = panel.querySelector("canvas"), listen = panel.querySelector("#listen");
  let source, player;
  const stop = () => {
    source?.close();
    player?.close();
    source = player = undefined;
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Show live sound";
    canvas.hidden = true;
    if (listen) { listen.hidden = true; listen.textContent = "Listen"; }
  };
  const open = (sound) => {
    source?.close();
    source = new EventSource(`${prefix}/live/${encodeURIComponent(panel.dataset.machine)}${sound ? "?sound=1" : ""}`);
    source.onmessage = (message) => {
      const heard = JSON.parse(message.data);
      if (heard.error) { say(heard.error); stop(); return; }
      meter(panel, heard.level_dbfs);
      columns(canvas, heard);
      if (heard.pcm) player?.play(heard);
    };
  };
  button.addEventListener("click", () => {
    if (source) { stop(); return; }
    open(false);
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Hide live sound";
    canvas.hidden = false;
    if (listen) listen.hidden = false;
  });
  listen?.addEventListener("click", () => {
    if (player) { player.close(); player = undefined; listen.textContent = "Listen"; open(false); return; }
    player = new Player();
    listen.textContent = "Stop listening";
    open(true);
  });
  addEventListener("pagehide", stop);
}

export function meter(panel, dbfs) {
  const bar = panel.querySelector(".meter"), share = Math.min(Math.max((dbfs - QUIET_DBFS) / (LOUD_DBFS - QUIET_DBFS), 0), 1);
  bar.querySelector(".fill").style.clipPath = `inset(0 ${(100 * (1 - share)).toFixed(1)}% 0 0)`;
  bar.setAttribute("aria-valuenow", dbfs.toFixed(0));
  bar.querySelector(".value").textContent = `${dbfs.toFixed(0)} dBFS`;
}

// Columns of dB, low frequencies first, come as one byte each: 0 = -128 dBFS.
function columns(canvas, heard) {
  const bytes = Uint8Array.from(atob(heard.columns), (c) => c.charCodeAt(0));
  const rows = heard.rows, count = bytes.length / rows;
  if (!count) return;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (canvas.height !== rows) { canvas.height = rows; context.fillRect(0, 0, canvas.width, rows); }
  const loudest = Math.max(...bytes) - 128;
  canvas.peak = Math.max(loudest, (canvas.peak ?? loudest) - FORGET_DB);
  context.drawImage(canvas, -count, 0);
  const image = context.createImageData(count, rows);
  for (let column = 0; column < count; column++) {
    for (let row = 0; row < rows; row++) {
      const db = bytes[column * rows + row] - 128;
      image.data.set([...inferno((db - canvas.peak + RANGE_DB) / RANGE_DB), 255], 4 * ((rows - 1 - row) * count + column));
    }
  }
  context.putImageData(image, canvas.width - count, 0);
}

// Chunks of 16-bit sound, one after the other.
class Player {
  constructor() {
    this.context = new AudioContext();
    this.next = 0;
  }

  play({ pcm, rate_hz: rate }) {
    const bytes = Uint8Array.from(atob(pcm), (c) => c.charCodeAt(0));
    const samples = Float32Array.from(new Int16Array(bytes.buffer), (x) => x / 32768);
    if (!samples.length) return;
    const buffer = this.context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const node = new AudioBufferSourceNode(this.context, { buffer });
    node.connect(this.context.destination);
    const now = this.context.currentTime;
    if (this.next < now) this.next = now + 0.3;
    node.start(this.next);
    this.next += buffer.duration;
  }

  close() { this.context.close(); }
}
