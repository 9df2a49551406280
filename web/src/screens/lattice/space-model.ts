/** A lattice in three dimensions as the server describes it, and how it is turned. */
import { signal } from "@preact/signals";
import { get, isAbort, words } from "../../api/client";
import { counted } from "./busy";
import type { Settings } from "./settings";

export type Vec = [number, number, number];

export interface SpaceFacts {
  kind: string;
  rank: number;
  points: Vec[];
  neighbours: Vec[];
  basis: Vec[];
  reduced: Vec[];
  gram: number[][];
  length: number;
  norm: number;
  kissing: number;
  touching: boolean;
  angle: number;
  volume: number;
  density: number;
  height: number;
  cell: { vertices: Vec[]; faces: number[][]; volume: number } | null;
  edges?: [number, number][];
}

export const space = signal<SpaceFacts | undefined>(undefined);
export const spaceError = signal<string | undefined>(undefined);
/** Turned by `around` about the vertical and tipped by `tip`; pixels a unit are fitted and multiplied by `zoom`. */
export const pose = signal({ around: 0.5, tip: 0.35, zoom: 1 });

let controller = new AbortController();

export async function loadSpace(s: Settings): Promise<void> {
  controller.abort();
  controller = new AbortController();
  const asked = {
    kind: s.space,
    basis: s.basis,
    rows: s.rows,
    layer: s.layer,
    shift: s.shift,
    reach: s.reach,
  };
  try {
    space.value = await counted(() => get<SpaceFacts>("/api/lattice/space", asked, controller.signal));
    spaceError.value = undefined;
  } catch (error) {
    if (!isAbort(error)) spaceError.value = words(error);
  }
}

/** Rotation matrix of a pose, row by row: screen x, screen y, towards the eye. */
export function rotation(around: number, tip: number): number[] {
  const [c, s] = [Math.cos(around), Math.sin(around)];
  const [d, t] = [Math.cos(tip), Math.sin(tip)];
  return [c, s, 0, -s * t, c * t, d, s * d, -c * d, t];
}

export function turned(m: readonly number[], [x, y, z]: Vec): Vec {
  return [
    m[0]! * x + m[1]! * y + m[2]! * z,
    m[3]! * x + m[4]! * y + m[5]! * z,
    m[6]! * x + m[7]! * y + m[8]! * z,
  ];
}

/** A colour of the style sheet by its name, or red, green and blue. */
export type Tint<Name extends string> = Name | [number, number, number];

export interface Ball {
  at: Vec;
  radius: number;
  colour: Tint<"accent" | "cool" | "quiet">;
}

export interface Stroke {
  from: Vec;
  to: Vec;
  colour: Tint<"accent" | "cool" | "warm" | "quiet">;
  wide: number;
}

export interface Scene {
  balls: Ball[];
  strokes: Stroke[];
  faces: Vec[][];
  reach: number;
}

/** What is drawn: balls, strokes and faces. Kissing spheres have half the shortest vector as radius. */
export function sceneOf(f: SpaceFacts, s: Settings): Scene {
  const size = (v: Vec) => Math.hypot(...v);
  const small = 0.09 * f.length;
  const key = (v: Vec) => v.map((x) => Math.round(x * 1e5)).join();
  const near = new Set(f.neighbours.map(key));
  const balls = f.points.map((at): Ball => {
    const middle = size(at) < 1e-6;
    if (middle) return { at, radius: s.spheres && f.rank < 8 ? f.length / 2 : small, colour: "accent" };
    if (near.has(key(at)) && f.height < 1e-9)
      return { at, radius: s.spheres ? f.length / 2 : small, colour: "cool" };
    return { at, radius: f.rank === 8 ? 0.02 : small, colour: f.rank === 8 ? "accent" : "quiet" };
  });
  const strokes: Stroke[] = [];
  if (s.vectors) for (const to of f.basis) strokes.push({ from: [0, 0, 0], to, colour: "warm", wide: 3 });
  for (const [i, j] of f.edges ?? [])
    strokes.push({ from: f.points[i]!, to: f.points[j]!, colour: "quiet", wide: 0.35 });
  const faces: Vec[][] = [];
  if (s.cell && f.cell)
    for (const face of f.cell.faces) {
      const corners = face.map((i) => f.cell!.vertices[i]!);
      if (corners.length > 2) faces.push(corners);
      corners.forEach((from, i) => {
        if (corners.length > 2 || i === 0)
          strokes.push({ from, to: corners[(i + 1) % corners.length]!, colour: "accent", wide: 1.6 });
      });
    }
  const reach = Math.max(f.length, ...balls.map((b) => size(b.at) + b.radius), ...f.basis.map(size));
  return { balls, strokes, faces, reach };
}
