/** The token embedding in space: turned by hand, coloured by what a token is, with the neighbours of one. */
import { computed, effect, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { Button, Select, TextField, Toggle } from "../../controls";
import { reducedMotion, theme } from "../../state/theme";
import { flatRenderer, type Look } from "../lattice/space-flat";
import { glRenderer } from "../lattice/space-gl";
import { rotation, turned, type Vec } from "../lattice/space-model";
import { api, type Cloud, type Near } from "./api";
import {
  COLOURS,
  type Frame,
  frameOf,
  from,
  hues,
  sceneOf,
  stretch,
  times,
  tints,
  under,
} from "./cloud-scene";
import { figure, percent, type Rgb, visible, whole } from "./figures";
import { rgb, stops } from "./map";
import { colour, equal, fixed, placeKey, structure, token } from "./state";

const HOME = { around: 0.6, tip: 0.3, zoom: 1 };
const pose = signal(HOME);
const found = signal<Cloud | undefined>(undefined);
const factors = computed<Vec>(() => (found.value && equal.value ? stretch(found.value) : [1, 1, 1]));
/** As it is drawn: its directions stretched or not. */
const cloud = computed<Cloud | undefined>(
  () => found.value && { ...found.value, xyz: found.value.xyz.map((v) => times(factors.value, v)) },
);
const frame = computed<Frame | undefined>(() => cloud.value && frameOf(cloud.value));
const asked = signal<Near | undefined>(undefined);
const near = computed<Near | undefined>(() => {
  const now = asked.value;
  if (!now) return undefined;
  const place = <T extends { xyz: Vec }>(n: T): T => ({ ...n, xyz: times(factors.value, n.xyz) });
  return { ...place(now), near: now.near.map(place) };
});
const hovered = signal<number | undefined>(undefined);
const turning = signal(false);

export function CloudView() {
  const [problem, setProblem] = useState<string>();
  const key = `${placeKey.value} ${structure.value?.checkpoint}`;
  useEffect(() => {
    if (!structure.peek()) return;
    const stop = new AbortController();
    found.value = undefined;
    asked.value = undefined;
    hovered.value = undefined;
    setProblem(undefined);
    api.cloud(fixed.peek(), stop.signal).then(
      (answer) => {
        found.value = answer;
      },
      (error: unknown) => {
        if (!isAbort(error)) setProblem(words(error));
      },
    );
    return () => stop.abort();
  }, [key]);
  const drawn = cloud.value;
  return (
    <div class="two cloud">
      <div class="cloud-stage">
        <h2 class="visually-hidden">Token embedding</h2>
        {problem ? (
          <p class="field-error in-waiting">{problem}</p>
        ) : drawn ? (
          <Stage of={drawn} />
        ) : (
          <p class="quiet in-waiting">Finding the widest directions …</p>
        )}
      </div>
      {drawn && <Side of={drawn} />}
    </div>
  );
}

/** Ask for a token's neighbours, by its number. */
function choose(id: number): void {
  token.value = `#${id}`;
}

function Stage({ of }: { of: Cloud }) {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => draw(ref.current!), []);
  const under_ = hovered.value;
  return (
    <>
      <canvas
        ref={ref}
        class="cloud-canvas"
        data-control="inside.cloud"
        role="application"
        tabIndex={0}
        aria-label="Token embedding in space: drag or arrow keys turn it, + and − zoom, a click picks a token"
      />
      <Labels canvas={ref} />
      <p class="cloud-status">
        <span class="mono">
          {of.ids.length < of.vocab
            ? `${whole(of.ids.length)} of ${whole(of.vocab)} tokens, the commonest`
            : `${whole(of.vocab)} tokens`}
        </span>
        <span class="quiet">
          {percent(of.shares.reduce((a, b) => a + b, 0))} of the variance of {of.width} dimensions (
          {of.shares.map(percent).join(", ")})
        </span>
        {under_ !== undefined && (
          <b class="mono said-token">
            {visible(of.texts[under_]!)} #{of.ids[under_]}
          </b>
        )}
      </p>
      <div class="zoom">
        <Button
          control="inside.cloud-turn"
          title="Turn by itself"
          pressed={turning.value}
          onClick={() => {
            turning.value = !turning.peek();
          }}
        >
          ↻
        </Button>
        <Button control="inside.cloud-in" title="Closer (+)" onClick={() => zoom(1.25)}>
          +
        </Button>
        <Button control="inside.cloud-out" title="Farther (−)" onClick={() => zoom(0.8)}>
          −
        </Button>
        <Button
          control="inside.cloud-home"
          title="As at first"
          onClick={() => {
            turning.value = false;
            pose.value = HOME;
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
  pose.value = { ...p, zoom: Math.min(12, Math.max(0.4, p.zoom * factor)) };
}

function turn(dx: number, dy: number): void {
  const p = pose.peek();
  const tip = Math.min(Math.PI / 2, Math.max(-Math.PI / 2, p.tip + dy * 0.01));
  pose.value = { ...p, around: p.around - dx * 0.01, tip };
}

/** Pixels a unit of the embedding. */
function scaleOf(canvas: HTMLCanvasElement, edge: number): number {
  return (0.48 * Math.min(canvas.width, canvas.height) * pose.value.zoom) / edge;
}

interface Label {
  id: number;
  text: string;
  x: number;
  y: number;
}

/** Those that can be read: what would lie over one before it is left out. */
export function readable(labels: readonly Label[]): Label[] {
  const kept: Label[] = [];
  const wide = (l: Label) => 7.4 * l.text.length + 10;
  for (const l of labels)
    if (!kept.some((k) => Math.abs(k.y - l.y) < 17 && l.x < k.x + wide(k) && k.x < l.x + wide(l)))
      kept.push(l);
  return kept;
}

/** The texts of the chosen token and its neighbours, over the picture. */
function Labels({ canvas: ref }: { canvas: { current: HTMLCanvasElement | null } }) {
  const now = near.value;
  const canvas = ref.current;
  const view = frame.value;
  const p = pose.value;
  void sized.value;
  if (!now || !canvas || !view) return null;
  const matrix = rotation(p.around, p.tip);
  const scale = scaleOf(canvas, view.edge) / devicePixelRatio;
  const label = (n: { id: number; text: string; xyz: Vec }): Label => {
    const [x, y] = turned(matrix, from(view.centre, n.xyz));
    return {
      id: n.id,
      text: visible(n.text),
      x: canvas.clientWidth / 2 + x * scale,
      y: canvas.clientHeight / 2 - y * scale,
    };
  };
  return (
    <div class="cloud-labels" aria-hidden="true">
      {readable([label(now), ...now.near.map(label)]).map((l) => (
        <span
          key={l.id}
          class={l.id === now.id ? "mono cloud-chosen" : "mono"}
          style={{ left: `${l.x}px`, top: `${l.y}px` }}
        >
          {l.text}
        </span>
      ))}
    </div>
  );
}

const sized = signal(0);

function draw(canvas: HTMLCanvasElement): () => void {
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
    const { width, height } = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
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
  const wheel = (e: WheelEvent) => {
    e.preventDefault();
    zoom(Math.exp(-Math.max(-240, Math.min(240, e.deltaY)) * 0.002));
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.onkeydown = (e) => {
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => turn(-12, 0),
      ArrowRight: () => turn(12, 0),
      ArrowUp: () => turn(0, -12),
      ArrowDown: () => turn(0, 12),
      "+": () => zoom(1.25),
      "=": () => zoom(1.25),
      "-": () => zoom(0.8),
    };
    if (!actions[e.key]) return;
    e.preventDefault();
    e.stopPropagation();
    actions[e.key]!();
  };
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

const shades = (dark: boolean): Rgb[] => stops(dark).slice(1);

function Side({ of }: { of: Cloud }) {
  const [problem, setProblem] = useState<string>();
  const typed = token.value;
  useEffect(() => {
    setProblem(undefined);
    if (!typed) {
      asked.value = undefined;
      return;
    }
    const stop = new AbortController();
    api.near(fixed.peek(), typed, stop.signal).then(
      (answer) => {
        asked.value = answer;
      },
      (error: unknown) => {
        if (isAbort(error)) return;
        asked.value = undefined;
        setProblem(words(error));
      },
    );
    return () => stop.abort();
  }, [typed, found.value]);
  const now = near.value;
  return (
    <aside class="side" aria-label="Colours and neighbours">
      <Select
        control="inside.colour"
        label="Coloured by"
        value={colour.value}
        options={COLOURS.filter((c) => c.value !== "frequency" || of.counts !== null)}
        onChange={(v) => {
          colour.value = v;
        }}
      />
      <Legend of={of} />
      <Toggle
        control="inside.equal"
        label="directions equally wide"
        hint="Off: all three directions to one scale, so that lengths can be compared"
        value={equal.value}
        onChange={(v) => {
          equal.value = v;
        }}
      />
      <TextField
        control="inside.find"
        label="Find a token"
        mono
        placeholder="its text, a part of it, or #12"
        value={typed}
        error={problem}
        onChange={(v) => {
          token.value = v;
        }}
      />
      {now && (
        <>
          <section aria-label="The token">
            <h3>
              <span class="mono said-token">{visible(now.text)}</span> #{now.id}
            </h3>
            <dl class="in-figures in-figures-one">
              <Fact name="prime" value={whole(now.prime)} />
              <Fact name="class, id mod 12" value={String(now.id % 12)} />
              <Fact name="class, prime mod 12" value={String(now.prime % 12)} />
              <Fact name="norm" value={figure(now.norm)} />
              {countOf(of, now.id) !== undefined && (
                <Fact name="in the training text" value={whole(countOf(of, now.id)!)} />
              )}
            </dl>
          </section>
          <List title={`Nearest in ${of.width} dimensions, by cosine`} tokens={now.near} />
          {now.others.length > 0 && <List title="Also found" tokens={now.others} />}
          <Button
            control="inside.forget"
            onClick={() => {
              token.value = "";
            }}
          >
            No token
          </Button>
        </>
      )}
      {!now && !problem && (
        <p class="quiet">Click on a token, or find one by its text, to see which ones are near it.</p>
      )}
    </aside>
  );
}

function countOf(of: Cloud, id: number): number | undefined {
  const at = of.ids.indexOf(id);
  return at < 0 || !of.counts ? undefined : of.counts[at];
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class="mono">{value}</dd>
    </div>
  );
}

function List({ title, tokens }: { title: string; tokens: Near["near"] }) {
  return (
    <section aria-label={title}>
      <h3>{title}</h3>
      <ol class="in-bars">
        {tokens.map((n) => (
          <li key={n.id}>
            <button
              type="button"
              class="link mono in-bars-text"
              data-control="inside.near"
              onClick={() => choose(n.id)}
            >
              {visible(n.text)}
            </button>
            {n.cosine !== undefined && (
              <>
                <span class="in-bar-track">
                  <span style={{ width: `${100 * Math.max(0, n.cosine)}%` }} />
                </span>
                <span class="mono in-bars-value" data-cosine={n.cosine}>
                  {n.cosine.toFixed(3).replace("-", "−")}
                </span>
              </>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

function Legend({ of }: { of: Cloud }) {
  const by = colour.value;
  const dark = theme.value === "dark";
  const css = (c: Rgb) => `rgb(${c.join(" ")})`;
  if (by === "class" || by === "prime") {
    const held = new Set(by === "class" ? of.id_classes : of.prime_classes);
    return (
      <ul class="in-legend" aria-label="Classes">
        {hues(dark).map(
          (c, i) =>
            held.has(i) && (
              <li key={i} class="mono">
                <span style={{ background: css(c) }} />
                {i}
              </li>
            ),
        )}
      </ul>
    );
  }
  const values = by === "frequency" ? (of.counts ?? [0]) : of.norms;
  const line = shades(dark).map(css).join(", ");
  return (
    <p class="in-legend-line mono">
      {by === "frequency" ? whole(Math.min(...values)) : figure(Math.min(...values), 3)}
      <span style={{ background: `linear-gradient(to right, ${line})` }} />
      {by === "frequency" ? whole(Math.max(...values)) : figure(Math.max(...values), 3)}
    </p>
  );
}
