/** The curves of the shown runs: what is on the axes, zoom, smoothing; kept live by the runs' events. */
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { watchRun } from "../../api/socket";
import { Button, Select, Toggle } from "../../controls";
import { api, type Curve, type RunCurves } from "./api";
import { Chart, type Line } from "./chart";
import { colourOf } from "./runs";
import { take } from "./state";
import { figure, metricName, short } from "./words";

export const metric = signal("step.loss");
const axis = signal("step");
const logX = signal(false);
const logY = signal(false);
const smoothing = signal("auto");

const SMALL = ["step.loss", "step.grad_norm", "step.lr", "step.tokens_per_s"];
const SMOOTH: Record<string, number | null> = { off: 0.01, auto: null, "10": 10, "50": 50, "200": 200 };
const EVERY = 350; // milliseconds between two looks at a live run

/** The validation loss belongs to the training loss. */
const PARTNER: Record<string, string> = { "step.loss": "eval.loss" };

interface CurvesProps {
  runs: readonly string[];
}

type Found = Record<string, RunCurves>;
type Range = readonly [number, number];

/** From the first to the last place on the axis; none where that is one place. */
export function extent(curves: readonly { x: readonly number[] }[]): Range | undefined {
  const low = Math.min(...curves.flatMap(({ x }) => x.slice(0, 1)));
  const high = Math.max(...curves.flatMap(({ x }) => x.slice(-1)));
  return high > low ? [low, high] : undefined;
}

function line(curve: Curve, name: string, place: number, raw: boolean): Line {
  const dots = name.startsWith("eval.") || name.startsWith("final.");
  return {
    label: name,
    colour: colourOf(place),
    x: curve.x,
    y: curve.y,
    low: curve.low,
    high: curve.high,
    ema: raw || dots ? undefined : curve.ema,
    dots,
  };
}

export function Curves({ runs }: CurvesProps) {
  const [found, setFound] = useState<Found>({});
  const [zoomed, setZoomed] = useState<{ of: string; range: Range }>();
  const [width, setWidth] = useState(800);
  const frame = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => setWidth(inside(frame.current!)), []); // before anything is asked for
  const [cursor, setCursor] = useState<number>();
  const [stale, setStale] = useState(0);
  const key = runs.join("\n");
  const chosen = metric.value;
  const x = axis.value;
  // the whole axis as the last answer without a zoom had it: where "all" is before the next one has come
  const [whole, setWhole] = useState<{ of: string; range: Range | undefined }>();
  const columns = Math.max(100, Math.ceil((width - 70) / 100) * 100);

  // a zoom belongs to one axis of these runs
  const place = `${key}|${x}|${logX.value}`;
  const zoom = zoomed?.of === place ? zoomed.range : undefined;
  const setZoom = (range: Range | undefined) => setZoomed(range && { of: place, range });

  useEffect(() => {
    const stop = new AbortController();
    const metrics = [...new Set([chosen, ...(PARTNER[chosen] ? [PARTNER[chosen]] : []), ...SMALL])];
    api
      .curves(
        {
          runs: [...runs],
          metrics,
          x,
          low: zoom?.[0] ?? null,
          high: zoom?.[1] ?? null,
          width: columns,
          log_x: logX.value && x !== "metric",
          half_life: SMOOTH[smoothing.value] ?? null,
        },
        stop.signal,
      )
      .then((answer) => {
        setFound(answer.runs);
        if (zoom) return;
        const drawn = Object.values(answer.runs).flatMap(({ metrics: m }) =>
          [chosen, PARTNER[chosen]].flatMap((name) => (name && m[name] ? [m[name]] : [])),
        );
        setWhole({ of: place, range: extent(drawn) });
      })
      .catch((error: unknown) => {
        if (!isAbort(error)) tell(error);
      });
    return () => stop.abort();
  }, [key, chosen, x, logX.value, smoothing.value, zoom?.[0], zoom?.[1], columns, stale]);

  // live: events wake it, a look follows at most every EVERY milliseconds
  const timer = useRef<number | undefined>(undefined);
  const loaded = runs.every((r) => r in found);
  useEffect(() => {
    if (!loaded) return;
    const ends = runs.map((run) =>
      watchRun(run, found[run]!.cursor, (events) => {
        take(run, events);
        if (timer.current === undefined)
          timer.current = window.setTimeout(
            () => {
              timer.current = undefined;
              setStale((n) => n + 1);
            },
            document.hidden ? 4000 : EVERY,
          );
      }),
    );
    return () => {
      for (const end of ends) end();
      clearTimeout(timer.current);
      timer.current = undefined;
    };
  }, [key, loaded]);

  const known = [...new Set(runs.flatMap((r) => found[r]?.known ?? []))];
  const raw = smoothing.value === "off";
  const lines = useMemo(
    () =>
      runs.flatMap((run, place) =>
        [chosen, PARTNER[chosen]].flatMap((name) => {
          const curve = name ? found[run]?.metrics[name] : undefined;
          return curve && name ? [line(curve, name, place, raw)] : [];
        }),
      ),
    [found, chosen, key, raw],
  );
  const points = lines.reduce((sum, l) => sum + (l.dots ? 0 : 1), 0)
    ? runs.reduce((sum, r) => sum + (found[r]?.metrics[chosen]?.points ?? 0), 0)
    : 0;
  const bad = runs.flatMap((r) => found[r]?.metrics[chosen]?.bad ?? []);
  const scatter = !["step", "tokens", "time"].includes(x);
  const xOptions = [
    { value: "step", label: "steps" },
    { value: "tokens", label: "tokens seen" },
    { value: "time", label: "time of training" },
    ...known.map((m) => ({ value: m, label: metricName(m), group: "Over a metric" })),
  ];
  const yOptions = (known.includes(chosen) ? known : [chosen, ...known]).map((m) => ({
    value: m,
    label: metricName(m),
  }));
  return (
    <section class="curves" aria-label="Curves">
      <div class="curves-tools">
        <Select
          control="train.metric"
          label="Curve"
          value={chosen}
          options={yOptions}
          onChange={(v) => {
            metric.value = v;
          }}
        />
        <Select
          control="train.axis"
          label="over"
          value={x}
          options={xOptions}
          onChange={(v) => {
            axis.value = v;
          }}
        />
        <Select
          control="train.smoothing"
          label="Smoothing"
          value={smoothing.value}
          options={[
            { value: "off", label: "none" },
            { value: "auto", label: "by length" },
            { value: "10", label: "10 points" },
            { value: "50", label: "50 points" },
            { value: "200", label: "200 points" },
          ]}
          onChange={(v) => {
            smoothing.value = v;
          }}
        />
        <Toggle
          control="train.log-x"
          label="log x"
          value={logX.value}
          onChange={(v) => {
            logX.value = v;
          }}
        />
        <Toggle
          control="train.log-y"
          label="log y"
          value={logY.value}
          onChange={(v) => {
            logY.value = v;
          }}
        />
        {zoom && (
          <Button control="train.zoom-reset" title="Show all of it (0)" onClick={() => setZoom(undefined)}>
            Show all
          </Button>
        )}
      </div>
      <div ref={frame} class="curves-frame">
        {lines.length === 0 ? (
          <p class="curves-none">
            {loaded ? "No point yet: the first step is still to come." : "Reading the log …"}
          </p>
        ) : (
          <Chart
            control="train.chart"
            label={`${metricName(chosen)} over ${x}. Drag to zoom in; plus, minus and the arrow keys zoom and move, 0 shows all.`}
            lines={lines}
            height={300}
            logX={logX.value}
            logY={logY.value}
            seconds={x === "time"}
            range={zoom ?? (whole?.of === place ? whole.range : undefined)}
            onZoom={(low, high) => setZoom([low, high])}
            onReset={() => setZoom(undefined)}
            onWidth={setWidth}
            onCursor={setCursor}
          />
        )}
      </div>
      <Legend
        runs={runs}
        found={found}
        metric={chosen}
        cursor={cursor}
        points={points}
        scatter={scatter}
        bad={bad}
      />
      <div class="curves-small" role="group" aria-label="Other curves">
        {SMALL.filter((m) => m !== chosen && known.includes(m)).map((m) => (
          <button
            key={m}
            type="button"
            class="small"
            data-control="train.small"
            title={`Show ${metricName(m)} large`}
            onClick={() => {
              metric.value = m;
            }}
          >
            <span class="small-name">
              {metricName(m)}
              <span class="mono">{figure(last(found[runs[0]!]?.metrics[m]) ?? Number.NaN)}</span>
            </span>
            <Chart
              label={metricName(m)}
              small
              height={92}
              logX={logX.value}
              seconds={x === "time"}
              lines={runs.flatMap((run, place) => {
                const curve = found[run]?.metrics[m];
                return curve ? [line(curve, m, place, false)] : [];
              })}
            />
          </button>
        ))}
      </div>
    </section>
  );
}

function inside(element: HTMLElement): number {
  const { paddingLeft, paddingRight } = getComputedStyle(element);
  return element.clientWidth - Number.parseFloat(paddingLeft) - Number.parseFloat(paddingRight);
}

function last(curve: Curve | undefined): number | undefined {
  const values = curve?.ema ?? curve?.y;
  return values?.[values.length - 1] ?? undefined;
}

/** The value of a curve at a place of the axis: its nearest point's. */
export function valueAt(curve: Curve, x: number): number | undefined {
  const values = curve.ema ?? curve.y;
  if (!values || curve.x.length === 0) return undefined;
  let low = 0;
  let high = curve.x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (curve.x[middle]! < x) low = middle + 1;
    else high = middle;
  }
  if (low > 0 && x - curve.x[low - 1]! < curve.x[low]! - x) low -= 1;
  return values[low] ?? undefined;
}

interface LegendProps {
  runs: readonly string[];
  found: Found;
  metric: string;
  cursor: number | undefined;
  points: number;
  scatter: boolean;
  bad: number[];
}

function Legend({ runs, found, metric: name, cursor, points, scatter, bad }: LegendProps) {
  const partner = PARTNER[name];
  return (
    <div class="legend mono">
      {runs.map((run, place) => {
        const curve = found[run]?.metrics[name];
        const other = partner ? found[run]?.metrics[partner] : undefined;
        const value = curve && (cursor === undefined || scatter ? last(curve) : valueAt(curve, cursor));
        const second = other && (cursor === undefined || scatter ? last(other) : valueAt(other, cursor));
        return (
          <span key={run} class="legend-run">
            <span class="swatch" style={{ background: `var(--${colourOf(place)})` }} aria-hidden="true" />
            {run.replace(/^runs\//, "")} <b>{value === undefined ? "–" : figure(value)}</b>
            {second !== undefined && <span class="quiet"> ● {figure(second)}</span>}
          </span>
        );
      })}
      <span class="quiet legend-note">
        {cursor !== undefined && !scatter
          ? `at ${short(cursor)}`
          : points > 0
            ? `${short(points)} points`
            : ""}
        {partner && Object.values(found).some((f) => f.metrics[partner]) ? " · ● validation" : ""}
        {bad.length > 0 ? ` · ${bad.length} not finite, first at ${short(bad[0])}` : ""}
      </span>
    </div>
  );
}
