/** The picture itself: one canvas a pane (the primes, and beside them the random model), moved by pointer and keys. */
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { tell } from "../../api/client";
import { fitToBox } from "../../controls/canvas";
import { theme, token } from "../../state/theme";
import { folded, foldedPlace, loadFolded } from "./folded";
import { isGrid, leastOf, MAX_N, numberAt, placeOf } from "./inverse";
import { hovered, line, mark, waiting } from "./model";
import { listen } from "./plane-input";
import { geometryKey, nullQuery, query, settings } from "./settings";
import { TileLayer } from "./tiles";
import { paneSize, toPane, toWorld, view } from "./view";

interface Colours {
  ground: string;
  text: string;
  quiet: string;
  line: string;
  accent: string;
  cool: string;
  warm: string;
  focus: string;
}

function colours(): Colours {
  const names = ["ground", "text", "quiet", "line", "accent", "cool", "warm", "focus"] as const;
  return Object.fromEntries(names.map((n) => [n, token(n)])) as unknown as Colours;
}

/** Pictures for the export: the canvases that are shown now. */
export const shownCanvases: HTMLCanvasElement[] = [];

export function Plane() {
  const frame = useRef<HTMLDivElement>(null);
  const split = settings.value.null !== "off";
  return (
    <div ref={frame} class={`panes${split ? " panes-two" : ""}`}>
      <Pane random={false} label="The numbers" />
      {split && <Pane random={true} label="The random model" />}
    </div>
  );
}

function Pane({ random, label }: { random: boolean; label: string }) {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const canvas = ref.current!;
    return run(canvas, random);
  }, [random]);
  const s = settings.value;
  return (
    <figure class="pane">
      <canvas
        ref={ref}
        data-control={random ? "lattice.null-canvas" : "lattice.canvas"}
        role="application"
        tabIndex={0}
        aria-label={`${label}: drag or arrow keys move, wheel or + and − zoom, click or Enter shows the number`}
      />
      {s.null !== "off" && (
        <figcaption class="pane-name">
          {random
            ? `Random: each ${s.null === "odd" ? "odd n with probability 2/ln n" : "n with probability 1/ln n"}`
            : "The primes"}
        </figcaption>
      )}
    </figure>
  );
}

/** Everything that lives with one canvas. Returns what ends it. */
function run(canvas: HTMLCanvasElement, random: boolean): () => void {
  const g = canvas.getContext("2d", { alpha: false })!;
  let asked = 0;
  const redraw = () => {
    if (!asked) asked = requestAnimationFrame(draw);
  };
  const layer = new TileLayer(redraw, tell);
  const draw = () => {
    asked = 0;
    paint(g, canvas, layer, random);
    waiting.value = layer.waiting;
    canvas.dataset.waiting = String(layer.waiting);
  };
  const measure = () => {
    const size = fitToBox(canvas);
    if (!random) paneSize.value = size;
    redraw();
  };
  measure(); // the first view is fitted to this size
  const sized = new ResizeObserver(measure);
  sized.observe(canvas);
  const stops = [
    effect(() => {
      const s = settings.value;
      if (s.curve === "space") return;
      if (s.curve === "folded-clock") {
        void theme.value;
        void loadFolded(s);
      } else layer.show(random ? nullQuery.value : query.value, geometryKey(s), isGrid(s.curve));
      redraw();
    }),
    effect(() => {
      void [view.value, mark.value, line.value, hovered.value, folded.value, theme.value, paneSize.value];
      redraw();
    }),
    listen(canvas),
  ];
  if (!random) shownCanvases[0] = canvas;
  else shownCanvases[1] = canvas;
  return () => {
    for (const stop of stops) stop();
    sized.disconnect();
    cancelAnimationFrame(asked);
    layer.dispose();
    if (shownCanvases[random ? 1 : 0] === canvas) shownCanvases.splice(random ? 1 : 0);
  };
}

function paint(
  g: CanvasRenderingContext2D,
  canvas: HTMLCanvasElement,
  layer: TileLayer,
  random: boolean,
): void {
  const c = colours();
  const ratio = canvas.width / Math.max(1, canvas.clientWidth);
  const v = view.peek();
  const s = settings.peek();
  g.setTransform(1, 0, 0, 1, 0, 0);
  g.fillStyle = c.ground;
  g.fillRect(0, 0, canvas.width, canvas.height);
  if (s.curve === "folded-clock") {
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    paintFolded(g, c);
    return;
  }
  layer.draw(g, { x: v.x, y: v.y, scale: v.scale / ratio }, canvas.width, canvas.height);
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (isGrid(s.curve)) paintGrid(g, c);
  if (s.labels && !random) paintLabels(g, c);
  if (!random) paintLine(g, c);
  paintMarks(g, c);
}

function paintGrid(g: CanvasRenderingContext2D, c: Colours): void {
  const v = view.peek();
  const cell = 1 / v.scale;
  if (cell < 9) return;
  const { width, height } = paneSize.peek();
  g.strokeStyle = c.line;
  g.globalAlpha = Math.min(0.8, (cell - 9) / 20);
  g.lineWidth = 1;
  g.beginPath();
  const [x0, y1] = toWorld(0, 0);
  for (let x = Math.ceil(x0); ; x++) {
    const [px] = toPane(x, 0);
    if (px > width) break;
    g.moveTo(Math.round(px) + 0.5, 0);
    g.lineTo(Math.round(px) + 0.5, height);
  }
  for (let y = Math.floor(y1); ; y--) {
    const [, py] = toPane(0, y);
    if (py > height) break;
    g.moveTo(0, Math.round(py) + 0.5);
    g.lineTo(width, Math.round(py) + 0.5);
  }
  g.stroke();
  g.globalAlpha = 1;
}

/** Numbers beside or in their places, where there is room. */
function paintLabels(g: CanvasRenderingContext2D, c: Colours): void {
  const s = settings.peek();
  const v = view.peek();
  const room = 1 / v.scale; // pixels a world unit
  const { width, height } = paneSize.peek();
  const grid = isGrid(s.curve);
  if (!placeOf(s, leastOf(s) + 1) || room < (grid ? 24 : 20)) return;
  const seen = new Map<number, [number, number]>();
  const step = grid ? room : Math.max(12, room / 3);
  const [ox, oy] = grid
    ? toPane(Math.floor(toWorld(0, 0)[0]) + 0.5, Math.floor(toWorld(0, 0)[1]) + 0.5)
    : [0, 0];
  for (let py = oy; py < height + step; py += step)
    for (let px = ox; px < width + step; px += step) {
      const n = numberAt(s, ...toWorld(px, py));
      if (n !== undefined && n >= 0 && n <= MAX_N && !seen.has(n)) seen.set(n, placeOf(s, n)!);
      if (seen.size > 1500) return;
    }
  const longest = Math.max(...[...seen.keys()].map((n) => String(n).length), 1);
  const width1 = s.curve === "sacks" ? room * 2.4 : room * 0.94;
  const size = Math.min(13, (width1 / longest) * 1.6, room * 0.42);
  if (size < 6.5) return;
  g.font = `${size}px ${getComputedStyle(document.documentElement).getPropertyValue("--mono")}`;
  g.textAlign = "center";
  g.textBaseline = "middle";
  g.lineWidth = 3;
  g.strokeStyle = c.ground;
  g.fillStyle = c.text;
  const below = s.curve === "sacks" ? 0.38 * room + size * 0.75 : 0;
  for (const [n, [x, y]] of seen) {
    const [px, py] = toPane(x, y);
    g.globalAlpha = 0.85;
    g.strokeText(String(n), px, py + below);
    g.globalAlpha = 1;
    g.fillText(String(n), px, py + below);
  }
}

function paintLine(g: CanvasRenderingContext2D, c: Colours): void {
  const shown = line.peek();
  if (!shown) return;
  const { width, height } = paneSize.peek();
  const points = shown.x.map((x, i) => toPane(x, shown.y[i]!));
  g.strokeStyle = c.cool;
  g.globalAlpha = 0.55;
  g.lineWidth = 1.25;
  g.beginPath();
  points.forEach(([x, y], i) => {
    const far = 4 * Math.max(width, height);
    if (Math.abs(x) > far || Math.abs(y) > far) return;
    if (i === 0) g.moveTo(x, y);
    else g.lineTo(x, y);
  });
  g.stroke();
  g.globalAlpha = 1;
  const size = Math.min(7, Math.max(2, 0.3 / view.peek().scale));
  points.forEach(([x, y], i) => {
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) return;
    g.beginPath();
    g.arc(x, y, size, 0, 7);
    if (shown.prime[i]) {
      g.fillStyle = c.cool;
      g.fill();
    } else {
      g.strokeStyle = c.cool;
      g.lineWidth = 1;
      g.stroke();
    }
  });
}

function paintMarks(g: CanvasRenderingContext2D, c: Colours): void {
  const grid = isGrid(settings.peek().curve);
  const cell = 1 / view.peek().scale;
  const hover = hovered.peek();
  const ring = (x: number, y: number, colour: string, wide: number) => {
    const [px, py] = toPane(x, y);
    g.strokeStyle = colour;
    g.lineWidth = wide;
    if (grid && cell >= 6) {
      g.strokeRect(px - cell / 2, py - cell / 2, cell, cell);
      return;
    }
    g.beginPath();
    g.arc(px, py, Math.max(6, Math.min(16, 0.5 * cell)), 0, 7);
    g.stroke();
  };
  if (hover) ring(hover.x, hover.y, c.quiet, 1);
  const at = mark.peek();
  if (!at) return;
  ring(at.x, at.y, c.ground, 6);
  ring(at.x, at.y, c.focus, 3);
  const [px, py] = toPane(at.x, at.y);
  g.strokeStyle = c.focus;
  g.lineWidth = 1;
  const inner = Math.max(10, Math.min(22, 0.75 * cell));
  g.beginPath();
  for (const [dx, dy] of [
    [1, 0],
    [-1, 0],
    [0, 1],
    [0, -1],
  ] as const) {
    g.moveTo(px + dx * inner, py + dy * inner);
    g.lineTo(px + dx * (inner + 9), py + dy * (inner + 9));
  }
  g.stroke();
}

function paintFolded(g: CanvasRenderingContext2D, c: Colours): void {
  const f = folded.peek();
  if (!f) return;
  const t = settings.peek().fold;
  const v = view.peek();
  const room = 1 / v.scale;
  const rings = [...new Set(f.radius)];
  g.strokeStyle = c.line;
  g.lineWidth = 1;
  const [ox, oy] = toPane(0, 0);
  for (const r of rings) {
    g.beginPath();
    // what is left of a ring: the whole, the upper half, the first quadrant
    const from = t >= 2 ? -Math.PI / 2 : t > 1 ? -Math.PI / 2 : -Math.PI;
    g.arc(ox, oy, r * room, t <= 0 ? 0 : from, t <= 0 ? 2 * Math.PI : 0);
    g.stroke();
  }
  g.strokeStyle = c.quiet;
  g.globalAlpha = 0.5;
  g.beginPath();
  const far = (Math.max(...rings) + 1) * room;
  g.moveTo(ox - (t > 1 ? 0 : far), oy);
  g.lineTo(ox + far, oy);
  g.moveTo(ox, oy - far);
  g.lineTo(ox, oy + (t > 0 ? 0 : far));
  g.stroke();
  g.globalAlpha = 1;
  const size = Math.min(9, Math.max(1.2, 0.2 * room));
  for (let i = 0; i < f.n.length; i++) {
    const [x, y, lift] = foldedPlace(f, i, t);
    const [px, py] = toPane(x, y);
    const r = size * (f.bright[i] ? 1 : 0.55) * (1 + 0.02 * Math.min(lift, 15));
    g.beginPath();
    g.arc(px, py - lift * room * 0.12, r, 0, 7);
    const colour = f.colour[i] || c.line;
    // polarity + − + −: a layer that lies face down is drawn as a ring
    const down = f.quadrant[i]! % 2 === 1 && t > 0.5;
    if (down && size > 2.4) {
      g.strokeStyle = colour;
      g.lineWidth = Math.max(1, size * 0.32);
      g.stroke();
    } else {
      g.fillStyle = colour;
      g.fill();
    }
  }
  const at = settings.peek().n;
  const i = /^\d+$/.test(at) ? Number(at) - f.n[0]! : -1;
  if (i >= 0 && i < f.n.length) {
    const [x, y, lift] = foldedPlace(f, i, t);
    const [px, py] = toPane(x, y);
    g.strokeStyle = c.focus;
    g.lineWidth = 2.5;
    g.beginPath();
    g.arc(px, py - lift * room * 0.12, size + 5, 0, 7);
    g.stroke();
  }
}
