/** The curves of the shown runs: what is on the axes, zoom, smoothing; kept live by the runs' events. */
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { watchRun } from "../../api/socket";
import { Button, Select, Toggle } from "../../controls";
import { api, type Curve, type RunCurves } from "./api";
import { Chart, type Line } from "./chart";
import { Legend, last } from "./legend";
import { colourOf } from "./runs";
import { take } from "./state";
import { BY_GROUP, figure, GROUPS, metricName, namesOf } from "./words";

export const metric = signal("step.loss");
const axis = signal("step");
const logX = signal(false);
const logY = signal(false);
const smoothing = signal("auto");

const SMALL = ["step.loss", "step.grad_norm", BY_GROUP, "step.lr", "step.tokens_per_s"];
const SMOOTH: Record<string, number | null> = { off: 0.01, auto: null, "10": 10, "50": 50, "200": 200 };
const EVERY = 350; // milliseconds between two looks at a live run

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

/** The lines of a metric: one a run, or, by group, one a group of the first run. */
function linesOf(metric: string, runs: readonly string[], found: Found, raw: boolean): Line[] {
  const grouped = metric === BY_GROUP;
  return (grouped ? runs.slice(0, 1) : runs).flatMap((run, place) =>
    namesOf(metric).flatMap((name, i) => {
      const curve = found[run]?.metrics[name];
      return curve ? [line(curve, name, grouped ? i : place, raw)] : [];
    }),
  );
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
    const metrics = [...new Set([chosen, ...SMALL].flatMap(namesOf))];
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
          namesOf(chosen).flatMap((name) => m[name] ?? []),
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

  const logged = new Set(runs.flatMap((r) => found[r]?.known ?? []));
  const known = [...(logged.has(GROUPS[0]!) ? [BY_GROUP] : []), ...logged];
  const raw = smoothing.value === "off";
  const lines = useMemo(() => linesOf(chosen, runs, found, raw), [found, chosen, key, raw]);
  const points = lines.reduce((sum, l) => sum + (l.dots ? 0 : 1), 0)
    ? runs.reduce((sum, r) => sum + (found[r]?.metrics[namesOf(chosen)[0]!]?.points ?? 0), 0)
    : 0;
  const bad = runs.flatMap((r) => namesOf(chosen).flatMap((name) => found[r]?.metrics[name]?.bad ?? []));
  const scatter = !["step", "tokens", "time"].includes(x);
  const xOptions = [
    { value: "step", label: "steps" },
    { value: "tokens", label: "tokens seen" },
    { value: "time", label: "time of training" },
    ...[...logged].map((m) => ({ value: m, label: metricName(m), group: "Over a metric" })),
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
              {m !== BY_GROUP && (
                <span class="mono">{figure(last(found[runs[0]!]?.metrics[m]) ?? Number.NaN)}</span>
              )}
            </span>
            <Chart
              label={metricName(m)}
              small
              height={92}
              logX={logX.value}
              seconds={x === "time"}
              lines={linesOf(m, runs, found, false)}
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
