/** The camera, and the pointer's and keyboard's ways to move it. */
import { signal } from "@preact/signals";
import { busy } from "./busy";
import { settings } from "./settings";

/** Centre and world units a CSS pixel. */
export interface View {
  x: number;
  y: number;
  scale: number;
}

export const view = signal<View>({ x: 0, y: 0, scale: 1 });
/** Size of one pane in CSS pixels. */
export const paneSize = signal({ width: 800, height: 600 });

const NEAREST = 1e-11;
/** World units a pixel at most; p → (p, p) has all integers of a ring to look at. */
function farthest(): number {
  const curve = settings.peek().curve;
  if (curve.startsWith("crystalline")) return 1;
  return curve === "archimedes" ? 8192 : 1e10;
}

function bounded(scale: number): number {
  return Math.min(farthest(), Math.max(NEAREST, scale));
}

function setView(next: View): void {
  const scale = bounded(next.scale);
  const far = 2e12;
  view.value = {
    x: Math.min(far, Math.max(-far, next.x)),
    y: Math.min(far, Math.max(-far, next.y)),
    scale,
  };
}

let moving = 0;
let hands = 0;

/** How often somebody has moved the picture: what was asked for before the last time does not move it any more. */
export function moves(): number {
  return hands;
}

function stopGlide(): void {
  if (!moving) return;
  cancelAnimationFrame(moving);
  moving = 0;
  busy.value -= 1;
}

/** By hand: a glide ends where it is. */
function take(): void {
  hands += 1;
  stopGlide();
}

/** Show this at once, as somebody asked: what was still on its way to another place does not get there any more. */
export function placeView(next: View): void {
  take();
  setView(next);
}

/** Zoom so that the point (px, py) of the pane, in CSS pixels, stays where it is. */
export function zoomAt(factor: number, px: number, py: number): void {
  take();
  const { width, height } = paneSize.peek();
  const v = view.peek();
  const scale = bounded(v.scale * factor);
  const dx = px - width / 2;
  const dy = height / 2 - py;
  setView({ x: v.x + dx * (v.scale - scale), y: v.y + dy * (v.scale - scale), scale });
}

export function zoomBy(factor: number): void {
  zoomAt(factor, paneSize.peek().width / 2, paneSize.peek().height / 2);
}

export function panBy(dx: number, dy: number): void {
  take();
  const v = view.peek();
  setView({ ...v, x: v.x - dx * v.scale, y: v.y + dy * v.scale });
}

export function toWorld(px: number, py: number): [number, number] {
  const { width, height } = paneSize.peek();
  const v = view.peek();
  return [v.x + (px - width / 2) * v.scale, v.y + (height / 2 - py) * v.scale];
}

export function toPane(x: number, y: number): [number, number] {
  const { width, height } = paneSize.peek();
  const v = view.peek();
  return [(x - v.x) / v.scale + width / 2, height / 2 - (y - v.y) / v.scale];
}

/** The world box that a pane shows. */
export function box(): { x0: number; y0: number; x1: number; y1: number } {
  const { width, height } = paneSize.peek();
  const [x0, y1] = toWorld(0, 0);
  const [x1, y0] = toWorld(width, height);
  return { x0, y0, x1, y1 };
}

/** Move there in a quarter of a second, or at once. */
export function glideTo(target: View, still: boolean): void {
  stopGlide();
  const from = view.peek();
  const far = Math.hypot(target.x - from.x, target.y - from.y) / Math.max(target.scale, from.scale);
  if (still || far > 3000) {
    setView(target);
    return;
  }
  const began = performance.now();
  const step = (now: number) => {
    const t = Math.min(1, (now - began) / 260);
    const e = 1 - (1 - t) ** 3;
    setView({
      x: from.x + (target.x - from.x) * e,
      y: from.y + (target.y - from.y) * e,
      scale: from.scale * (target.scale / from.scale) ** e,
    });
    if (t < 1) moving = requestAnimationFrame(step);
    else stopGlide();
  };
  busy.value += 1;
  moving = requestAnimationFrame(step);
}
