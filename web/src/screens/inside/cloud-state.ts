/** The cloud: what was asked of the server, how it is stretched, and how it is turned. */
import { computed, signal } from "@preact/signals";
import type { Vec } from "../lattice/space-model";
import type { Cloud, Near } from "./api";
import { type Frame, frameOf, stretch, times } from "./cloud-scene";
import type { Rgb } from "./figures";
import { stops } from "./map";
import { equal, token } from "./state";

export const HOME = { around: 0.6, tip: 0.3, zoom: 1 };
export const pose = signal(HOME);
export const found = signal<Cloud | undefined>(undefined);
export const factors = computed<Vec>(() => (found.value && equal.value ? stretch(found.value) : [1, 1, 1]));
/** As it is drawn: its directions stretched or not. */
export const cloud = computed<Cloud | undefined>(
  () => found.value && { ...found.value, xyz: found.value.xyz.map((v) => times(factors.value, v)) },
);
export const frame = computed<Frame | undefined>(() => cloud.value && frameOf(cloud.value));
export const asked = signal<Near | undefined>(undefined);
export const near = computed<Near | undefined>(() => {
  const now = asked.value;
  if (!now) return undefined;
  const place = <T extends { xyz: Vec }>(n: T): T => ({ ...n, xyz: times(factors.value, n.xyz) });
  return { ...place(now), near: now.near.map(place) };
});
export const hovered = signal<number | undefined>(undefined);
export const turning = signal(false);

export const sized = signal(0);

/** Ask for a token's neighbours, by its number. */
export function choose(id: number): void {
  token.value = `#${id}`;
}

export function zoom(factor: number): void {
  const p = pose.peek();
  pose.value = { ...p, zoom: Math.min(12, Math.max(0.4, p.zoom * factor)) };
}

export function turn(dx: number, dy: number): void {
  const p = pose.peek();
  const tip = Math.min(Math.PI / 2, Math.max(-Math.PI / 2, p.tip + dy * 0.01));
  pose.value = { ...p, around: p.around - dx * 0.01, tip };
}

/** Pixels a unit of the embedding. */
export function scaleOf(canvas: HTMLCanvasElement, edge: number): number {
  return (0.48 * Math.min(canvas.width, canvas.height) * pose.value.zoom) / edge;
}

export const shades = (dark: boolean): Rgb[] => stops(dark).slice(1);
