/** The logit lens: what the residual stream would say behind each layer, as if it were the last. */
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { Segmented } from "../../controls";
import { api, type LensLine, type Trace } from "./api";
import { figure, percent, visible } from "./figures";
import { fixed, spot, text, trace, traceKey } from "./state";

const tint = signal<"p" | "entropy" | "next">("p");

interface Lens {
  lines: readonly LensLine[];
  texts: Readonly<Record<string, string>>;
}

export function stage(at: number, layers: number): string {
  if (at === layers) return "output";
  return at === 0 ? "embedding" : `layer ${at - 1}`;
}

export function LensView() {
  const of = trace.value;
  const [found, setFound] = useState<Lens>({ lines: [], texts: {} });
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    if (!traceKey.value) return;
    const stop = new AbortController();
    setFound({ lines: [], texts: {} });
    setProblem(undefined);
    const lines: LensLine[] = [];
    let texts: Record<string, string> = {};
    const readAll = async () => {
      for await (const line of api.lens(fixed.peek(), text.peek(), stop.signal)) {
        lines.push(line);
        texts = { ...texts, ...line.texts };
        setFound({ lines: [...lines], texts });
      }
    };
    readAll().catch((error: unknown) => {
      if (!isAbort(error)) setProblem(words(error));
    });
    return () => stop.abort();
  }, [traceKey.value]);
  if (!of) return <p class="quiet in-waiting">Reading the text …</p>;
  if (problem) return <p class="field-error in-waiting">{problem}</p>;
  if (!found.lines.length) return <p class="quiet in-waiting">Looking through the layers …</p>;
  return (
    <div class="two lens">
      <Grid of={of} lens={found} />
      <Spot of={of} lens={found} />
    </div>
  );
}

function now(lens: Lens, t: number): { at: number; place: number } {
  const layers = lens.lines[0]!.at;
  const { at, place } = spot.value;
  return {
    at: at < 0 || at > layers ? layers : at,
    place: place < 0 || place >= t ? Math.max(0, Math.min(6, t - 2)) : place,
  };
}

/** How strongly a cell is tinted, 0 to 1: probability of its best, little entropy, or probability of what comes. */
export function strength(line: LensLine, place: number, by: "p" | "entropy" | "next", vocab: number): number {
  if (by === "p") return line.p[place]![0]!;
  if (by === "next") return line.next[place]?.[0] ?? 0;
  return 1 - Math.min(1, line.entropy[place]! / Math.log(Math.max(vocab, 2)));
}

function Grid({ of, lens }: { of: Trace; lens: Lens }) {
  const t = of.tokens.length;
  const layers = lens.lines[0]!.at;
  const { at, place } = now(lens, t);
  const vocab = of.ops.find((o) => o.op === "head")?.shape[1] ?? 2;
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const chosen = ref.current?.querySelector("[data-on=true]");
    if (chosen && ref.current!.contains(document.activeElement))
      chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [at, place]);
  const choose = (event: Event) => {
    const cell = (event.target as HTMLElement).closest<HTMLElement>("[data-cell]");
    if (!cell) return;
    const [a, p] = cell.dataset.cell!.split(".").map(Number);
    spot.value = { at: a!, place: p! };
  };
  const move = (event: KeyboardEvent) => {
    const steps: Record<string, [number, number]> = {
      ArrowUp: [1, 0],
      ArrowDown: [-1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const within = (x: number, most: number) => Math.min(most, Math.max(0, x));
    spot.value = { at: within(at + step[0], layers), place: within(place + step[1], t - 1) };
  };
  return (
    <div class="lens-main">
      <div class="map-tools">
        <h2>What each layer would say next</h2>
        <Segmented
          control="inside.tint"
          label="Tint"
          quiet
          value={tint.value}
          options={[
            { value: "p", label: "its probability" },
            { value: "entropy", label: "certainty" },
            { value: "next", label: "what comes" },
          ]}
          onChange={(v) => {
            tint.value = v as "p" | "entropy" | "next";
          }}
        />
      </div>
      <div
        ref={ref}
        class="lens-frame"
        data-control="inside.lens"
        role="application"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: an application takes the focus and the arrow keys
        tabIndex={0}
        aria-label="Likeliest next token behind each layer, at each token; the arrow keys move"
        aria-describedby="inside-spot"
        onClick={choose}
        onKeyDown={move}
      >
        {lens.lines.map((line) => (
          <div key={line.at} class="lens-row">
            <span class="lens-stage">{stage(line.at, layers)}</span>
            {line.top.map((top, i) => (
              <span
                key={i}
                id={`lens-${line.at}-${i}`}
                data-cell={`${line.at}.${i}`}
                class={`lens-cell mono ${line.next[i]?.[1] === 0 ? "lens-right" : ""}`}
                data-on={line.at === at && i === place}
                style={{ "--tint": `${Math.round(42 * strength(line, i, tint.value, vocab))}%` }}
              >
                {visible(lens.texts[String(top[0])] ?? "")}
                {layers <= 12 && <small>{percent(line.p[i]![0]!)}</small>}
              </span>
            ))}
          </div>
        ))}
        <div class="lens-row lens-foot">
          <span class="lens-stage">{lens.lines.length <= layers ? "… reads" : "reads"}</span>
          {of.tokens.map(([, word], i) => (
            <span key={i} class={`lens-cell lens-token mono ${i === place ? "on" : ""}`}>
              {visible(word)}
            </span>
          ))}
        </div>
      </div>
      <p class="quiet lens-legend">
        <span class="lens-right">underlined</span>: the token that really comes. Upwards in a column, the
        guess takes shape.
      </p>
    </div>
  );
}

function Spot({ of, lens }: { of: Trace; lens: Lens }) {
  const t = of.tokens.length;
  const layers = lens.lines[0]!.at;
  const { at, place } = now(lens, t);
  const line = lens.lines.find((one) => one.at === at);
  const coming = of.tokens[place + 1];
  const next = line?.next[place];
  return (
    <aside class="side" aria-label="One place">
      <div id="inside-spot" class="side-head" role="status">
        <h2>
          Behind <span class="mono said-token">{visible(of.tokens[place]![1])}</span> at {place}
        </h2>
        <p class="quiet">
          {at === layers
            ? "the model's output"
            : at === 0
              ? "the embedding alone, read by the head"
              : `the residual stream behind layer ${at - 1}, read by the head`}
        </p>
      </div>
      {!line ? (
        <p class="quiet">This layer is being read …</p>
      ) : (
        <>
          <ol class="in-bars" aria-label="Likeliest next tokens">
            {line.top[place]!.map((id, i) => (
              <li
                key={id}
                class={next && next[1] === i && next[0] === line.p[place]![i] ? "in-bars-right" : ""}
              >
                <span class="mono in-bars-text">{visible(lens.texts[String(id)] ?? "")}</span>
                <span class="in-bar-track">
                  <span style={{ width: `${100 * line.p[place]![i]!}%` }} />
                </span>
                <span class="mono in-bars-value" data-p={line.p[place]![i]}>
                  {percent(line.p[place]![i]!)}
                </span>
              </li>
            ))}
          </ol>
          <dl class="in-figures">
            <div title="of the whole distribution">
              <dt>entropy</dt>
              <dd class="mono">{figure(line.entropy[place])} nats</dd>
            </div>
            {next && coming && (
              <>
                <div>
                  <dt>
                    comes: <span class="mono said-token">{visible(coming[1])}</span>
                  </dt>
                  <dd class="mono">{percent(next[0])}</dd>
                </div>
                <div title="1: the likeliest">
                  <dt>its place</dt>
                  <dd class="mono">{next[1] + 1}</dd>
                </div>
              </>
            )}
          </dl>
        </>
      )}
      <Course lens={lens} place={place} layers={layers} at={at} />
    </aside>
  );
}

/** From the embedding to the output at one place: the probability of what comes, and the entropy. */
function Course({ lens, place, layers, at }: { lens: Lens; place: number; layers: number; at: number }) {
  const lines = [...lens.lines].sort((a, b) => a.at - b.at);
  if (lines.length < 2) return null;
  const [wide, high] = [280, 92];
  const x = (k: number) => 8 + (k / layers) * (wide - 16);
  const most = Math.max(...lines.map((l) => l.entropy[place]!), 1e-9);
  const entropy = lines.map((l) => [x(l.at), 6 + (high - 12) * (1 - l.entropy[place]! / most)] as const);
  const known = lines[0]!.next[place];
  const p = known
    ? lines.map((l) => [x(l.at), 6 + (high - 12) * (1 - l.next[place]![0])] as const)
    : undefined;
  const points = (of: readonly (readonly [number, number])[]) => of.map((one) => one.join()).join(" ");
  return (
    <figure class="course">
      <svg
        viewBox={`0 0 ${wide} ${high}`}
        role="img"
        aria-label="Layer by layer: entropy, and the probability of the token that comes"
      >
        <line class="course-now" x1={x(at)} x2={x(at)} y1="0" y2={high} />
        <polyline class="course-entropy" points={points(entropy)} />
        {entropy.map(([a, b]) => (
          <circle key={a} class="course-entropy" cx={a} cy={b} r="2.5" />
        ))}
        {p && <polyline class="course-p" points={points(p)} />}
        {p?.map(([a, b]) => (
          <circle key={a} class="course-p" cx={a} cy={b} r="2.5" />
        ))}
      </svg>
      <figcaption>
        <span class="quiet">embedding</span>
        <span>
          <span class="key course-key-entropy">entropy, to {figure(most, 2)}</span>
          {p && <span class="key course-key-p">p of what comes, to 1</span>}
        </span>
        <span class="quiet">output</span>
      </figcaption>
    </figure>
  );
}
