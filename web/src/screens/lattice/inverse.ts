/** Which number lies under the pointer, without asking the server: the inverses of the exact maps, and their places.
 * Written after `cllm.lattice`; `test/inverse.test.ts` compares them with vectors that the Python writes. */
import type { Settings } from "./settings";

const TAU = 2 * Math.PI;
export const MAX_N = 1e12;

export function ulamInverse(x: number, y: number): number {
  const k = Math.max(Math.abs(x), Math.abs(y));
  const last = (2 * k + 1) ** 2;
  if (y === -k) return last - (k - x);
  if (x === -k) return last - 3 * k - y;
  if (y === k) return last - 5 * k - x;
  return last - 7 * k + y;
}

export function ulam(n: number): [number, number] {
  if (n === 1) return [0, 0];
  let root = Math.floor(Math.sqrt(n - 1));
  while (root * root > n - 1) root--;
  while ((root + 1) * (root + 1) <= n - 1) root++;
  const k = Math.floor((root + 1) / 2);
  const back = (2 * k + 1) ** 2 - n;
  const side = Math.floor(back / (2 * k));
  const along = back - side * 2 * k;
  if (side === 0) return [k - along, -k];
  if (side === 1) return [-k, along - k];
  if (side === 2) return [along - k, k];
  return [k, k - along];
}

// orientation → for d = 0..3 the quadrant (x, y) and the orientation inside it
const STATES = [
  [0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 3],
  [0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 2],
  [1, 1, 3, 1, 0, 2, 0, 0, 2, 0, 1, 1],
  [1, 1, 2, 0, 1, 3, 0, 0, 3, 1, 0, 0],
];
export const HILBERT_ORDER = 20;

export function hilbertInverse(x: number, y: number): number {
  if (x < 0 || y < 0 || x >= 2 ** HILBERT_ORDER || y >= 2 ** HILBERT_ORDER) return -1;
  let d = 0;
  let state = 0;
  for (let level = HILBERT_ORDER - 1; level >= 0; level--) {
    const qx = (x >> level) & 1;
    const qy = (y >> level) & 1;
    const row = STATES[state]!;
    for (let digit = 0; digit < 4; digit++)
      if (row[3 * digit] === qx && row[3 * digit + 1] === qy) {
        d = 4 * d + digit;
        state = row[3 * digit + 2]!;
        break;
      }
  }
  return d;
}

export function hilbert(d: number): [number, number] {
  let x = 0;
  let y = 0;
  let state = 0;
  for (let level = HILBERT_ORDER - 1; level >= 0; level--) {
    const digit = Math.floor(d / 4 ** level) % 4;
    const row = STATES[state]!;
    x = 2 * x + row[3 * digit]!;
    y = 2 * y + row[3 * digit + 1]!;
    state = row[3 * digit + 2]!;
  }
  return [x, y];
}

function turnOf(x: number, y: number): number {
  const turn = Math.atan2(y, x) / TAU;
  return turn < 0 ? turn + 1 : turn;
}

export function sacksInverse(x: number, y: number): number {
  const turn = turnOf(x, y);
  const whole = Math.max(Math.round(Math.hypot(x, y) - turn), 0);
  return whole * whole + Math.round((2 * whole + turn) * turn);
}

export function sacks(n: number): [number, number] {
  const r = Math.sqrt(n);
  const whole = Math.floor(r);
  const angle = ((n - whole * whole) / Math.max(r + whole, 1)) * TAU;
  return [r * Math.cos(angle), r * Math.sin(angle)];
}

export function wheelInverse(x: number, y: number, modulus: number): number {
  const ring = Math.round(Math.hypot(x, y)) - 1;
  if (ring < 0) return -1;
  const spoke = Math.round(Math.atan2(y, x) * (modulus / TAU));
  return ring * modulus + (((spoke % modulus) + modulus) % modulus);
}

export function wheel(n: number, modulus: number): [number, number] {
  const angle = (n % modulus) * (TAU / modulus);
  const r = Math.floor(n / modulus) + 1;
  return [r * Math.cos(angle), r * Math.sin(angle)];
}

const RADICES = [12, 60, 60, 100];
const FIRST = [0, 12, 72, 132];
const LAP = 232;

export function ringInverse(x: number, y: number): number {
  const row = Math.round(Math.hypot(x, y)) - 1;
  if (row < 0) return -1;
  const size = RADICES[row % 4]!;
  const place = Math.round(Math.atan2(x, y) * (size / TAU));
  return Math.floor(row / 4) * LAP + FIRST[row % 4]! + (((place % size) + size) % size);
}

export function ringClock(index: number): [number, number] {
  const lap = Math.floor(index / LAP);
  const j = index - lap * LAP;
  const ring = j >= 132 ? 3 : j >= 72 ? 2 : j >= 12 ? 1 : 0;
  const angle = (j - FIRST[ring]!) * (TAU / RADICES[ring]!);
  const r = 4 * lap + ring + 1;
  return [r * Math.sin(angle), r * Math.cos(angle)];
}

/** The number at a point of the world: −1 where there is none, undefined where only the server knows. */
export function numberAt(s: Settings, x: number, y: number): number | undefined {
  const n = inverseOf(s, x, y);
  return n === undefined || (n >= leastOf(s) && n <= MAX_N) ? n : -1;
}

function inverseOf(s: Settings, x: number, y: number): number | undefined {
  switch (s.curve) {
    case "ulam":
      return ulamInverse(Math.floor(x), Math.floor(y)) + s.start - 1;
    case "hilbert": {
      const d = hilbertInverse(Math.floor(x), Math.floor(y));
      return d < 0 ? -1 : d + s.start;
    }
    case "sacks":
      return sacksInverse(x, y);
    case "wheel":
      return wheelInverse(x, y, s.modulus);
    case "ring-clock": {
      const index = ringInverse(x, y);
      return index < 0 ? -1 : index + s.start;
    }
    default:
      return undefined;
  }
}

/** Where a number lies in the world; undefined where only the server knows. */
export function placeOf(s: Settings, n: number): [number, number] | undefined {
  switch (s.curve) {
    case "ulam": {
      const [x, y] = ulam(n - s.start + 1);
      return [x + 0.5, y + 0.5];
    }
    case "hilbert": {
      const [x, y] = hilbert(n - s.start);
      return [x + 0.5, y + 0.5];
    }
    case "sacks":
      return sacks(n);
    case "wheel":
      return wheel(n, s.modulus);
    case "ring-clock":
      return ringClock(n - s.start);
    default:
      return undefined;
  }
}

export function leastOf(s: Settings): number {
  if (["ulam", "hilbert", "ring-clock"].includes(s.curve)) return s.start;
  return s.curve.startsWith("crystalline") ? 1 : 0;
}

export function isGrid(curve: string): boolean {
  return curve === "ulam" || curve === "hilbert";
}
