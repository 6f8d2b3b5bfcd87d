// Spectrogram of samples on a canvas: logarithmic frequencies, Hann windows, power in dB.
import { inferno } from "./colours.js";

const SIZE = 1024, LOWEST_HZ = 50, RANGE_DB = 65;
const hann = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

// In place, radix 2.
function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let length = 2; length <= n; length <<= 1) {
    const angle = (-2 * Math.PI) / length, half = length / 2;
    for (let k = 0; k < half; k++) {
      const c = Math.cos(angle * k), s = Math.sin(angle * k);
      for (let i = k; i < n; i += length) {
        const a = re[i + half] * c - im[i + half] * s, b = re[i + half] * s + im[i + half] * c;
        re[i + half] = re[i] - a; im[i + half] = im[i] - b;
        re[i] += a; im[i] += b;
      }
    }
  }
}

// -> power in dB, [column][bin]
export function power(samples, columns) {
  const re = new Float64Array(SIZE), im = new Float64Array(SIZE), found = [];
  const step = Math.max((samples.length - SIZE) / Math.max(columns - 1, 1), 1);
  for (let column = 0; column < columns; column++) {
    const first = Math.round(column * step);
    for (let i = 0; i < SIZE; i++) { re[i] = (samples[first + i] ?? 0) * hann[i]; im[i] = 0; }
    fft(re, im);
    found.push(Float32Array.from({ length: SIZE / 2 + 1 }, (_, k) => 10 * Math.log10((16 * (re[k] ** 2 + im[k] ** 2)) / SIZE ** 2 + 1e-14)));
  }
  return found;
}

export function loudest(spectra) {
  const all = spectra.map((column) => column.reduce((a, b) => Math.max(a, b), -140)).sort((a, b) => a - b);
  return all[Math.floor(0.98 * (all.length - 1))] ?? 0;
}

// Same `topHz` and `peak` for two canvases make their colours mean the same.
export function paint(canvas, spectra, rate, topHz, peak) {
  const { height } = canvas, width = spectra.length, context = canvas.getContext("2d");
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    const bin = (hertz(y, height, topHz) * SIZE) / rate, low = Math.min(Math.floor(bin), SIZE / 2 - 1);
    for (let x = 0; x < width; x++) {
      const db = spectra[x][low] + (bin - low) * (spectra[x][low + 1] - spectra[x][low]);
      image.data.set([...inferno((db - peak + RANGE_DB) / RANGE_DB), 255], 4 * (y * width + x));
    }
  }
  const between = new OffscreenCanvas(width, height);
  between.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(between, 0, 0, canvas.width, height);
}

const hertz = (y, height, topHz) => LOWEST_HZ * (topHz / LOWEST_HZ) ** (1 - y / height);
export const row = (hz, height, topHz) => height * (1 - Math.log(Math.max(hz, LOWEST_HZ) / LOWEST_HZ) / Math.log(topHz / LOWEST_HZ));
