/** The lattice in space, turned with the pointer or the arrow keys. */
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../../controls";
import { fitToBox } from "../../controls/canvas";
import { turnByKey, zoomByWheel } from "../../controls/turning";
import { theme, token } from "../../state/theme";
import { settings } from "./settings";
import { flatRenderer, type Rgb } from "./space-flat";
import { glRenderer } from "./space-gl";
import { loadSpace, pose, rotation, sceneOf, space, spaceError } from "./space-model";

function rgb(name: string): Rgb {
  const hex = token(name).replace("#", "");
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)) as Rgb;
}

export function Space() {
  const ref = useRef<HTMLCanvasElement>(null);
  const s = settings.value;
  useEffect(() => void loadSpace(settings.peek()), [s.space, s.basis, s.rows, s.layer, s.shift, s.reach]);
  useEffect(() => run(ref.current!), []);
  const f = space.value;
  return (
    <>
      <canvas
        ref={ref}
        class="space-canvas"
        data-control="lattice.space-canvas"
        role="application"
        tabIndex={0}
        aria-label="Lattice in space: drag or arrow keys turn it, wheel or + and − zoom"
      />
      <p class="lattice-status">
        {spaceError.value ? (
          <span class="field-error">{spaceError.value}</span>
        ) : (
          f && (
            <>
              <span class="mono">{f.points.length.toLocaleString("en")} points</span>
              <span class="quiet">drag to turn</span>
            </>
          )
        )}
      </p>
      <div class="zoom">
        <Button control="lattice.space-in" title="Closer (+)" onClick={() => zoom(1.25)}>
          +
        </Button>
        <Button control="lattice.space-out" title="Farther (−)" onClick={() => zoom(0.8)}>
          −
        </Button>
        <Button
          control="lattice.space-home"
          title="As at first"
          onClick={() => {
            pose.value = { around: 0.5, tip: 0.35, zoom: 1 };
          }}
        >
          ⌂
        </Button>
      </div>
    </>
  );
}

function zoom(factor: number): void {
  const p = pose.peek();
  pose.value = { ...p, zoom: Math.min(8, Math.max(0.3, p.zoom * factor)) };
}

function turn(dx: number, dy: number): void {
  const p = pose.peek();
  pose.value = {
    ...p,
    around: p.around - dx * 0.01,
    tip: Math.min(Math.PI / 2, Math.max(-Math.PI / 2, p.tip + dy * 0.01)),
  };
}

function run(canvas: HTMLCanvasElement): () => void {
  const renderer = glRenderer(canvas) ?? flatRenderer(canvas);
  canvas.dataset.renderer = renderer.name;
  let asked = 0;
  const draw = () => {
    asked = 0;
    const f = space.peek();
    if (!f) return;
    const scene = sceneOf(f, settings.peek());
    const p = pose.peek();
    // the 240 roots are looked at along the Coxeter plane until they are turned
    const flat = f.rank === 8 || f.rank === 2;
    const matrix = flat ? rotation(p.around - 0.5, Math.PI / 2 - (p.tip - 0.35)) : rotation(p.around, p.tip);
    const scale = (0.46 * Math.min(canvas.width, canvas.height) * p.zoom) / scene.reach;
    const names = ["accent", "cool", "warm", "quiet", "ground"] as const;
    const colours = Object.fromEntries(names.map((n) => [n, rgb(n)])) as Record<(typeof names)[number], Rgb>;
    renderer.draw(scene, { matrix, scale, colours });
    canvas.dataset.drawn = String(scene.balls.length);
  };
  const redraw = () => {
    if (!asked) asked = requestAnimationFrame(draw);
  };
  const sized = new ResizeObserver(() => {
    fitToBox(canvas);
    redraw();
  });
  sized.observe(canvas);
  const stop = effect(() => {
    void [space.value, settings.value, pose.value, theme.value];
    redraw();
  });
  let last: PointerEvent | undefined;
  const down = (e: PointerEvent) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
    last = e;
  };
  const move = (e: PointerEvent) => {
    if (!last) return;
    turn(e.clientX - last.clientX, e.clientY - last.clientY);
    last = e;
  };
  const up = () => {
    last = undefined;
  };
  const wheel = (e: WheelEvent) => zoomByWheel(e, { turn, zoom });
  const key = (e: KeyboardEvent) => turnByKey(e, { turn, zoom });
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("keydown", key);
  return () => {
    stop();
    sized.disconnect();
    cancelAnimationFrame(asked);
    renderer.dispose();
  };
}
