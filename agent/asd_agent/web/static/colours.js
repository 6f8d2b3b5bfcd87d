// matplotlib's "inferno" (CC0), eight of its 256 colours, joined by straight lines: as in the agent's pictures.
const STEPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const TABLE = Array.from({ length: 256 }, (_, i) => {
  const at = (i / 255) * (STEPS.length - 1), low = Math.min(Math.floor(at), STEPS.length - 2);
  return STEPS[low].map((c, k) => Math.round(c + (at - low) * (STEPS[low + 1][k] - c)));
});

export const inferno = (share) => TABLE[Math.round(255 * Math.min(Math.max(share, 0), 1))];
