/** Attention maps: every head small, one of them large, and where one token looks. */
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { Segmented } from "../../controls";
import { theme } from "../../state/theme";
import { api, type HeadFacts, type HeadsLine, type Trace } from "./api";
import { allowed, figure, percent, visible } from "./figures";
import { paint, pixels, type Scale, small } from "./map";
import { cell, fixed, head, structure, text, trace, traceKey } from "./state";

const scale = signal<Scale>("root");

/** What stands out about a head, in a word. */
export function habit(f: HeadFacts, tokens: number): string {
  if (f.entropy === null) return "";
  if ((f.previous ?? 0) > 0.5) return "looks one back";
  if ((f.first ?? 0) > 0.5) return "looks at the first";
  if ((f.own ?? 0) > 0.5) return "looks at itself";
  // the mean entropy of uniform weights over what each query may see
  let even = 0;
  for (let i = 2; i <= tokens; i++) even += Math.log(i) / (tokens - 1);
  if (f.entropy > 0.9 * even) return "spread evenly";
  return f.entropy < 0.35 * even ? "sharp" : "";
}

export function AttentionView() {
  const found = trace.value;
  const s = structure.value;
  if (!s || !found) return <p class="quiet in-waiting">{found ? "" : "Reading the text …"}</p>;
  const heads = s.model.heads;
  const layers = s.model.layers;
  const now = { layer: Math.min(head.value.layer, layers - 1), head: Math.min(head.value.head, heads - 1) };
  return (
    <div class="two attention">
      <Large of={found} layer={now.layer} head={now.head} />
      <aside class="side" aria-label="Heads">
        <Heads of={found} layers={layers} heads={heads} now={now} />
      </aside>
    </div>
  );
}

const weights = signal<{ key: string; values: Float32Array } | undefined>(undefined);

function Large({ of, layer, head: number }: { of: Trace; layer: number; head: number }) {
  const ref = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [problem, setProblem] = useState<string>();
  const [side, setSide] = useState(480);
  const key = `${traceKey.value} ${layer} ${number}`;
  const t = of.tokens.length;
  useEffect(() => {
    const stop = new AbortController();
    api.attention(fixed.peek(), text.peek(), layer, number, stop.signal).then(
      (values) => {
        weights.value = { key, values };
        setProblem(undefined);
      },
      (error: unknown) => {
        if (!isAbort(error)) setProblem(words(error));
      },
    );
    return () => stop.abort();
  }, [key]);
  useEffect(() => {
    const sized = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSide(Math.max(200, Math.floor(height > 120 ? Math.min(width, height) : width)));
    });
    sized.observe(frame.current!);
    return () => sized.disconnect();
  }, []);
  const now = weights.value;
  const ready = now && now.values.length === t * t;
  useEffect(() => {
    if (!ready || !ref.current) return;
    const documents = of.tokens.map((one) => one[2]);
    const dark = theme.value === "dark";
    const image = pixels({
      weights: now.values,
      documents,
      masked: of.masked,
      scale: scale.value,
      dark,
    });
    paint(ref.current, image);
    ref.current.dataset.key = now.key;
  }, [now, of, scale.value, theme.value]);
  const { query, key: column } = inside(cell.value, t, ready ? now.values : undefined);
  const words_ = of.tokens.map(([, word]) => visible(word));
  const label = side / t >= 26 || (side / t >= 13 && t <= 40) ? 62 : 0; // room for the tokens' texts at the edges
  const size = side - label;
  const each = size / t;
  const at = (event: PointerEvent) => {
    const box = ref.current!.getBoundingClientRect();
    const of_ = (x: number, whole: number) => Math.min(t - 1, Math.max(0, Math.floor((x / whole) * t)));
    cell.value = {
      query: of_(event.clientY - box.top, box.height),
      key: of_(event.clientX - box.left, box.width),
    };
  };
  const steps: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
  };
  return (
    <div class="map-frame">
      <div class="map-tools">
        <h2>
          Layer {layer}, head {number}
        </h2>
        <Segmented
          control="inside.scale"
          label="Shades"
          quiet
          value={scale.value}
          options={[
            { value: "root", label: "√ weight" },
            { value: "linear", label: "weight" },
            { value: "row", label: "√ of the row" },
          ]}
          onChange={(v) => {
            scale.value = v as Scale;
          }}
        />
        <Ramp />
      </div>
      {problem && <p class="field-error">{problem}</p>}
      <div class="map-row">
        <div class="map-room" ref={frame}>
          <div
            class="map"
            style={{
              width: `${side}px`,
              height: `${side}px`,
              paddingLeft: `${label}px`,
              paddingTop: `${label}px`,
            }}
          >
            {label > 0 &&
              words_.map((word, i) => (
                <span
                  key={`q${i}`}
                  class={`map-query mono ${i === query ? "on" : ""}`}
                  style={{ top: `${label + each * i}px`, height: `${each}px`, width: `${label - 6}px` }}
                >
                  {word}
                </span>
              ))}
            {label > 0 &&
              words_.map((word, i) => (
                <span
                  key={`k${i}`}
                  class={`map-key mono ${i === column ? "on" : ""}`}
                  style={{ left: `${label + each * i}px`, width: `${each}px`, height: `${label - 6}px` }}
                >
                  {word}
                </span>
              ))}
            <canvas
              ref={ref}
              data-control="inside.map"
              role="application"
              tabIndex={0}
              aria-label={`Attention of layer ${layer}, head ${number}: rows are the tokens that look, columns those looked at; the arrow keys move`}
              aria-describedby="inside-map-cell"
              onPointerMove={at}
              onPointerDown={at}
              onKeyDown={(event) => {
                const step = steps[event.key];
                if (!step) return;
                event.preventDefault();
                event.stopPropagation();
                const to = (x: number) => Math.min(t - 1, Math.max(0, x));
                cell.value = { query: to(query + step[0]), key: to(column + step[1]) };
              }}
            />
            <span
              class="map-cell"
              aria-hidden="true"
              style={{
                left: `${label + each * column}px`,
                top: `${label + each * query}px`,
                width: `${each}px`,
                height: `${each}px`,
              }}
            />
          </div>
        </div>
        <div class="map-beside">
          <p id="inside-map-cell" class="map-said" role="status">
            {ready && <Said of={of} query={query} column={column} weight={now.values[query * t + column]!} />}
          </p>
          <Query of={of} />
        </div>
      </div>
    </div>
  );
}

/** The cell that is looked at; at first the last query, and the key that it sees best. */
function inside(at: { query: number; key: number }, t: number, values?: Float32Array): typeof at {
  const query = at.query < 0 || at.query >= t ? t - 1 : at.query;
  if (at.key >= 0 && at.key < t) return { query, key: at.key };
  if (!values) return { query, key: query };
  const row = values.subarray(query * t, query * t + t);
  return { query, key: row.indexOf(Math.max(...row)) };
}

function Said({ of, query, column, weight }: { of: Trace; query: number; column: number; weight: number }) {
  const name = (i: number) => visible(of.tokens[i]![1]);
  const documents = of.tokens.map((one) => one[2]);
  const may = allowed(query, column, documents, of.masked);
  return (
    <>
      <b class="mono said-token">{name(query)}</b> at {query} → <b class="mono said-token">{name(column)}</b>{" "}
      at {column}:{" "}
      {may === "yes" ? (
        <b class="mono" data-weight={weight}>
          {figure(weight)}
        </b>
      ) : may === "future" ? (
        <span class="quiet">not yet written: hidden by the causal mask</span>
      ) : (
        <span class="quiet">another document: hidden by the document mask</span>
      )}
    </>
  );
}

function Ramp() {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const n = 64;
    const values = new Float32Array(n);
    for (let i = 0; i < n; i++) values[i] = i / (n - 1);
    const image = new ImageData(n, 1);
    const row = pixels({
      weights: Float32Array.from({ length: n * n }, (_, i) => values[i % n]!),
      documents: new Array(n).fill(0),
      masked: false,
      scale: scale.value,
      dark: theme.value === "dark",
    });
    image.data.set(row.data.subarray(4 * n * (n - 1)));
    paint(ref.current!, image);
  }, [scale.value, theme.value]);
  return (
    <span
      class="ramp mono"
      title={
        scale.value === "row"
          ? "The shades, from 0 to the largest weight of each row"
          : "The shades, from a weight of 0 to 1"
      }
    >
      0 <canvas ref={ref} /> {scale.value === "row" ? "most" : "1"}
    </span>
  );
}

/** Where the chosen token looks: its largest weights, and the text tinted by them. */
function Query({ of }: { of: Trace }) {
  const t = of.tokens.length;
  const { query } = inside(cell.value, t);
  const now = weights.value;
  const row = now && now.values.length === t * t ? now.values.subarray(query * t, query * t + t) : undefined;
  if (!row) return null;
  const most = Math.max(...row) || 1;
  const top = [...row]
    .map((w, i) => ({ w, i }))
    .sort((a, b) => b.w - a.w)
    .slice(0, 6)
    .filter((one) => one.w > 0);
  return (
    <section aria-label="Where the chosen token looks">
      <h3>
        Where <span class="mono said-token">{visible(of.tokens[query]![1])}</span> at {query} looks
      </h3>
      <ol class="in-bars">
        {top.map(({ w, i }) => (
          <li key={i}>
            <span class="mono in-bars-text">{visible(of.tokens[i]![1])}</span>
            <span class="quiet mono">{i}</span>
            <span class="in-bar-track">
              <span style={{ width: `${(100 * w) / most}%` }} />
            </span>
            <span class="mono in-bars-value">{figure(w, 3)}</span>
          </li>
        ))}
      </ol>
      <p class="strip" aria-hidden="true">
        {of.tokens.map(([, word], i) => (
          <span
            key={i}
            class={i === query ? "strip-query" : i > query ? "strip-later" : ""}
            style={{ "--tint": `${Math.round(46 * Math.sqrt(row[i]! / most))}%` }}
          >
            {word.replace(/\n/g, "↵\n")}
          </span>
        ))}
      </p>
    </section>
  );
}

function Heads({
  of,
  layers,
  heads,
  now,
}: {
  of: Trace;
  layers: number;
  heads: number;
  now: { layer: number; head: number };
}) {
  const [rows, setRows] = useState<readonly HeadsLine[]>([]);
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    const stop = new AbortController();
    const found: HeadsLine[] = [];
    setRows([]);
    setProblem(undefined);
    const readAll = async () => {
      for await (const line of api.heads(fixed.peek(), text.peek(), stop.signal)) {
        found.push(line);
        setRows([...found]);
      }
    };
    readAll().catch((error: unknown) => {
      if (!isAbort(error)) setProblem(words(error));
    });
    return () => stop.abort();
  }, [traceKey.value]);
  const facts = rows[now.layer]?.heads[now.head];
  return (
    <section aria-label="All heads">
      <h3>All heads</h3>
      {problem && <p class="field-error">{problem}</p>}
      <div class="heads" style={{ "--heads": heads }}>
        {Array.from({ length: layers }, (_, layer) => (
          <div key={layer} class="heads-row">
            <span class="mono quiet heads-layer" title={`Layer ${layer}`}>
              {layer}
            </span>
            {Array.from({ length: heads }, (__, number) => {
              const line = rows[layer];
              const chosen = now.layer === layer && now.head === number;
              const word = line ? habit(line.heads[number]!, of.tokens.length) : "";
              return (
                <button
                  key={number}
                  type="button"
                  class="head"
                  data-control="inside.head"
                  aria-pressed={chosen}
                  aria-label={`Layer ${layer}, head ${number}${word ? `: ${word}` : ""}`}
                  title={`Layer ${layer}, head ${number}${word ? `: ${word}` : ""}`}
                  onClick={() => {
                    head.value = { layer, head: number };
                  }}
                >
                  {line && <Thumbnail picture={line.pictures[number]!} size={line.size} />}
                </button>
              );
            })}
          </div>
        ))}
      </div>
      {facts && facts.entropy !== null && (
        <dl class="in-figures in-figures-one head-facts">
          <Fact name="to the one before" value={facts.previous} share />
          <Fact name="to the first" value={facts.first} share />
          <Fact name="to itself" value={facts.own} share />
          <Fact name="entropy, nats" value={facts.entropy} />
        </dl>
      )}
    </section>
  );
}

function Fact({ name, value, share }: { name: string; value: number | null; share?: boolean }) {
  return (
    <div title="Mean over the tokens that see another one">
      <dt>{name}</dt>
      <dd class="mono">{value === null ? "–" : share ? percent(value) : figure(value, 3)}</dd>
    </div>
  );
}

function Thumbnail({ picture, size }: { picture: string; size: number }) {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => paint(ref.current!, small(picture, size, theme.value === "dark")), [picture, theme.value]);
  return <canvas ref={ref} />;
}
