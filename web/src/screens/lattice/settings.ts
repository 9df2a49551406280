/** Everything that a link to a picture holds, with its defaults; only what differs from them is written. */
import { computed, signal } from "@preact/signals";
import { theme } from "../../state/theme";

export const DEFAULTS = {
  curve: "ulam",
  start: 1,
  modulus: 30,
  lap: 0,
  fx: "sqrt(n)*cos(2*pi*sqrt(n))",
  fy: "sqrt(n)*sin(2*pi*sqrt(n))",
  polar: false,
  first: 1,
  count: 20000,
  colour: "prime",
  residue: 12,
  expression: "is_prime(n)",
  low: 0,
  high: 1,
  null: "off",
  seed: 1,
  dot: 1,
  labels: true,
  /** Centre and width of the view; width 0: the curve's own first view. */
  x: 0,
  y: 0,
  w: 0,
  /** The number in the inspector. */
  n: "",
  /** The overlay as "a b c", and its terms from t on. */
  line: "",
  t: 0,
  terms: 1000,
  fold: 0,
  /** The lattice in space. */
  space: "FCC",
  basis: "2 1 0 0 2 1 1 0 2",
  rows: "0 1 2",
  layer: 3,
  shift: 0,
  reach: 2,
  spheres: true,
  cell: true,
  vectors: true,
};

export type Settings = typeof DEFAULTS;
export type Key = keyof Settings;

export const settings = signal<Settings>({ ...DEFAULTS });

export function change(part: Partial<Settings>): void {
  settings.value = { ...settings.peek(), ...part };
}

export function read(params: Readonly<Record<string, string>>): Settings {
  const made: Record<string, unknown> = { ...DEFAULTS };
  for (const [key, text] of Object.entries(params)) {
    if (!(key in DEFAULTS)) continue;
    const kind = typeof DEFAULTS[key as Key];
    if (kind === "number") {
      const value = Number(text);
      if (Number.isFinite(value)) made[key] = value;
    } else made[key] = kind === "boolean" ? text === "1" : text;
  }
  return made as Settings;
}

export function write(s: Settings): Record<string, string> {
  const made: Record<string, string> = {};
  for (const key of Object.keys(DEFAULTS) as Key[]) {
    const value = s[key];
    if (value === DEFAULTS[key]) continue;
    made[key] = typeof value === "boolean" ? (value ? "1" : "0") : String(value);
  }
  return made;
}

/** What the server is asked with: the curve, its settings and the colouring, without what does not matter to it. */
export function pictureQuery(s: Settings, colours: "light" | "dark", random: boolean) {
  const q: Record<string, string | number | boolean> = { curve: s.curve, theme: colours };
  if (["ulam", "hilbert", "ring-clock"].includes(s.curve)) q.start = s.start;
  if (s.curve === "wheel") q.modulus = s.modulus;
  if (s.curve === "clock-abacus") q.lap = s.lap;
  if (s.curve === "formula")
    Object.assign(q, { fx: s.fx, fy: s.fy, polar: s.polar, first: s.first, count: s.count });
  q.colour = s.colour;
  if (s.colour === "residue") q.residue = s.residue;
  if (s.colour === "expression") Object.assign(q, { expression: s.expression, low: s.low, high: s.high });
  if (s.dot !== 1) q.dot = s.dot;
  if (random) Object.assign(q, { null: s.seed, odd: s.null === "odd" });
  return q;
}

/** The part of it that decides where numbers lie. */
export function geometryKey(s: Settings): string {
  const own = s.curve === "formula" ? [s.fx, s.fy, s.polar, s.first, s.count] : [];
  return JSON.stringify([s.curve, s.start, s.modulus, s.lap, ...own]);
}

export const query = computed(() => pictureQuery(settings.value, theme.value, false));
export const nullQuery = computed(() => pictureQuery(settings.value, theme.value, true));

/** A link that has no start of its own begins grids at 1 (Hilbert and the ring clock at 0). */
export function naturalStart(curve: string): number {
  return curve === "hilbert" || curve === "ring-clock" || curve === "folded-clock" ? 0 : 1;
}
