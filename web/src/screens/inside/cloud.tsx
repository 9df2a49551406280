/** The token embedding in space: turned by hand, coloured by what a token is, with the neighbours of one. */
import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { Button, Select, TextField, Toggle } from "../../controls";
import { theme } from "../../state/theme";
import { rotation, turned, type Vec } from "../lattice/space-model";
import { api, type Cloud, type Near } from "./api";
import { draw } from "./cloud-draw";
import { COLOURS, from, hues } from "./cloud-scene";
import {
  asked,
  choose,
  cloud,
  found,
  frame,
  HOME,
  hovered,
  near,
  pose,
  scaleOf,
  shades,
  sized,
  turning,
  zoom,
} from "./cloud-state";
import { figure, percent, type Rgb, visible, whole } from "./figures";
import { colour, equal, fixed, placeKey, structure, token } from "./state";

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
