/** The cloud on its canvas: drawn, turned by hand, and picked from. */
import { effect } from "@preact/signals";
import { fitToBox } from "../../controls/canvas";
import { turnByKey, zoomByWheel } from "../../controls/turning";
import { reducedMotion, theme } from "../../state/theme";
import { flatRenderer, type Look } from "../lattice/space-flat";
import { glRenderer } from "../lattice/space-gl";
import { rotation } from "../lattice/space-model";
import { sceneOf, tints, under } from "./cloud-scene";
import {
  choose,
  cloud,
  frame,
  hovered,
  near,
  pose,
  scaleOf,
  shades,
  sized,
  turn,
  turning,
  zoom,
} from "./cloud-state";
import { rgb } from "./map";
import { colour } from "./state";

export function draw(canvas: HTMLCanvasElement): () => void {
  const renderer = glRenderer(canvas) ?? flatRenderer(canvas);
  canvas.dataset.renderer = renderer.name;
  let asked = 0;
  let spinning = 0;
  const show = () => {
    asked = 0;
    const of = cloud.peek();
    if (!of) return;
    const dark = theme.peek() === "dark";
    const view = frame.peek()!;
    const scene = sceneOf(of, view, tints(of, colour.peek(), dark, shades(dark)), near.peek());
    const p = pose.peek();
    const names = ["accent", "cool", "warm", "quiet", "ground"] as const;
    const colours = Object.fromEntries(names.map((n) => [n, [...rgb(n)]])) as unknown as Look["colours"];
    const matrix = rotation(p.around, p.tip);
    renderer.draw(scene, { matrix, scale: scaleOf(canvas, view.edge), colours });
    canvas.dataset.drawn = String(scene.balls.length);
    canvas.dataset.strokes = String(scene.strokes.length);
  };
  const redraw = () => {
    if (!asked) asked = requestAnimationFrame(show);
  };
  const watched = new ResizeObserver(() => {
    fitToBox(canvas);
    sized.value += 1;
    redraw();
  });
  watched.observe(canvas);
  const stop = effect(() => {
    void [cloud.value, near.value, colour.value, pose.value, theme.value];
    redraw();
  });
  const spin = effect(() => {
    cancelAnimationFrame(spinning);
    if (!turning.value) return;
    if (reducedMotion.value) {
      turning.value = false;
      turn(-30, 0);
      return;
    }
    const go = () => {
      turn(-0.4, 0);
      spinning = requestAnimationFrame(go);
    };
    spinning = requestAnimationFrame(go);
  });
  const find = (e: PointerEvent) => {
    const of = cloud.peek();
    if (!of) return undefined;
    const box = canvas.getBoundingClientRect();
    const p = pose.peek();
    const scale = scaleOf(canvas, frame.peek()!.edge);
    const x = (e.clientX - box.left - box.width / 2) * devicePixelRatio;
    const y = (e.clientY - box.top - box.height / 2) * devicePixelRatio;
    return under(of, frame.peek()!, rotation(p.around, p.tip), scale, x, y, 9 * devicePixelRatio);
  };
  let last: PointerEvent | undefined;
  let moved = 0;
  canvas.onpointerdown = (e) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
    last = e;
    moved = 0;
  };
  canvas.onpointermove = (e) => {
    if (!last) {
      hovered.value = find(e);
      return;
    }
    moved += Math.abs(e.clientX - last.clientX) + Math.abs(e.clientY - last.clientY);
    turn(e.clientX - last.clientX, e.clientY - last.clientY);
    last = e;
  };
  canvas.onpointerup = (e) => {
    if (last && moved < 4) {
      const found = find(e);
      if (found !== undefined) choose(cloud.peek()!.ids[found]!);
    }
    last = undefined;
  };
  canvas.onpointercancel = () => {
    last = undefined;
  };
  canvas.onpointerleave = () => {
    hovered.value = undefined;
  };
  const wheel = (e: WheelEvent) => zoomByWheel(e, { turn, zoom });
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.onkeydown = (e) => turnByKey(e, { turn, zoom });
  return () => {
    stop();
    spin();
    turning.value = false;
    watched.disconnect();
    cancelAnimationFrame(asked);
    cancelAnimationFrame(spinning);
    canvas.removeEventListener("wheel", wheel);
    renderer.dispose();
  };
}
