/** The embedding as a scene of the space renderers: a ball a token, its colour a figure of the token. */
import type { Ball, Scene, Vec } from "../lattice/space-model";
import { turned } from "../lattice/space-model";
import type { Cloud, Near } from "./api";
import { type Rgb, ramp } from "./figures";

export const COLOURS = [
  { value: "class", label: "symmetry class: id mod 12" },
  { value: "prime", label: "its prime mod 12" },
  { value: "frequency", label: "frequency in the training text" },
  { value: "norm", label: "norm" },
] as const;

/** Twelve hues round the clock, evenly bright (OKLCH by its matrices), for dark and light pages. */
export function hues(dark: boolean): Rgb[] {
  return Array.from({ length: 12 }, (_, k) =>
    oklch(dark ? 0.78 : 0.56, dark ? 0.13 : 0.14, ((k * 30 + 90) * Math.PI) / 180),
  );
}

/** Björn Ottosson, A perceptual color space for image processing, 2020. */
export function oklch(light: number, chroma: number, hue: number): Rgb {
  const [a, b] = [chroma * Math.cos(hue), chroma * Math.sin(hue)];
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((x) => {
    const c = Math.min(1, Math.max(0, x));
    return Math.round(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055));
  }) as unknown as Rgb;
}

/** Where a token stands between the least and the most, 0 to 1: log counts, or norms. */
export function level(of: Cloud, by: string): number[] {
  const raw = by === "frequency" ? (of.counts ?? of.ids.map(() => 0)).map(Math.log1p) : of.norms;
  const low = Math.min(...raw);
  const span = Math.max(...raw) - low || 1;
  return raw.map((x) => (x - low) / span);
}

export function tints(of: Cloud, by: string, dark: boolean, shades: readonly Rgb[]): Rgb[] {
  const round = hues(dark);
  if (by === "class") return of.id_classes.map((c) => round[c]!);
  if (by === "prime") return of.prime_classes.map((c) => round[c]!);
  return level(of, by).map((t) => ramp(shades, t));
}

/** What each direction is multiplied by so that all are as wide as the first. */
export function stretch(of: Cloud): Vec {
  const [first = 1] = of.shares;
  return [0, 1, 2].map((k) => Math.sqrt(of.shares[k]! > 0 ? first / of.shares[k]! : 1)) as Vec;
}

export const times = (a: Vec, [x, y, z]: Vec): Vec => [a[0] * x, a[1] * y, a[2] * z];

/** Where the picture is centred, and how far its edge is from there: far outliers may lie beyond it. */
export interface Frame {
  centre: Vec;
  edge: number;
}

export function frameOf(of: Cloud): Frame {
  const most = (values: number[], share: number) =>
    values.sort((a, b) => a - b)[Math.round(share * (values.length - 1))] ?? 0;
  const centre = [0, 1, 2].map((k) => {
    const along = of.xyz.map((v) => v[k]!);
    return (most(along, 0.02) + most(along, 0.98)) / 2;
  }) as Vec;
  const far = of.xyz.map((v) => Math.hypot(...from(centre, v)));
  return { centre, edge: Math.max(1e-9, 1.1 * most(far, 0.97)) };
}

export function from(centre: Vec, [x, y, z]: Vec): Vec {
  return [x - centre[0], y - centre[1], z - centre[2]];
}

/** Balls for all, larger for the chosen one and its neighbours, and strokes to those. */
export function sceneOf(of: Cloud, frame: Frame, colours: readonly Rgb[], near: Near | undefined): Scene {
  const { centre, edge } = frame;
  const radius = edge * Math.min(0.022, 0.5 / Math.sqrt(of.ids.length));
  const special = new Set(near ? [near.id, ...near.near.map((n) => n.id)] : []);
  const balls: Ball[] = [];
  of.ids.forEach((id, i) => {
    if (!special.has(id)) balls.push({ at: from(centre, of.xyz[i]!), radius, colour: [...colours[i]!] });
  });
  const reach = (all: readonly Ball[]) => 1.05 * Math.max(edge, ...all.map((b) => Math.hypot(...b.at)));
  if (!near) return { balls, strokes: [], faces: [], reach: reach(balls) };
  const place = new Map(of.ids.map((id, i) => [id, i]));
  const add = (id: number, at: Vec, size: number) => {
    const i = place.get(id);
    balls.push({ at: from(centre, at), radius: size, colour: i === undefined ? "quiet" : [...colours[i]!] });
  };
  for (const n of near.near) add(n.id, n.xyz, radius * 1.5);
  add(near.id, near.xyz, radius * 2.1);
  const strokes = near.near.map((n) => ({
    from: from(centre, near.xyz),
    to: from(centre, n.xyz),
    colour: "accent" as const,
    wide: 1 + 2 * Math.max(0, n.cosine ?? 0),
  }));
  return { balls, strokes, faces: [], reach: reach(balls) };
}

/** The index of the token under a point of the picture (device pixels from its middle), nearest to the eye. */
export function under(
  of: Cloud,
  frame: Frame,
  matrix: readonly number[],
  scale: number,
  x: number,
  y: number,
  near = 9,
): number | undefined {
  let best: number | undefined;
  let depth = Number.NEGATIVE_INFINITY;
  of.xyz.forEach((v, i) => {
    const [a, b, c] = turned(matrix, from(frame.centre, v));
    if (Math.hypot(a * scale - x, -b * scale - y) <= near && c > depth) {
      best = i;
      depth = c;
    }
  });
  return best;
}
