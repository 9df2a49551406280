/** One chart: uPlot for the axes and the drawing, the raw curve faint (or the envelope where columns hold many points)
 * behind its moving average, evaluations as dots. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme, token } from "../../state/theme";
import { figure, short } from "./words";

export interface Line {
  label: string;
  /** A colour of the style sheet: "plot-1". */
  colour: string;
  x: number[];
  y?: (number | null)[] | undefined;
  low?: (number | null)[] | undefined;
  high?: (number | null)[] | undefined;
  ema?: (number | null)[] | undefined;
  /** Few points that count one by one. */
  dots?: boolean;
}

interface ChartProps {
  control?: string;
  label: string;
  lines: readonly Line[];
  height: number;
  logX?: boolean;
  logY?: boolean;
  /** The x axis counts seconds. */
  seconds?: boolean;
  xName?: string;
  /** What stands below the x axis, where it does not count; lines are parted by a line end. */
  ticks?: ((x: number) => string) | undefined;
  small?: boolean;
  range?: readonly [number, number] | undefined;
  onZoom?: (low: number, high: number) => void;
  onReset?: () => void;
  onWidth?: (width: number) => void;
  onCursor?: (x: number | undefined) => void;
}

interface Parts {
  tables: uPlot.AlignedData[];
  series: uPlot.Series[];
  bands: uPlot.Band[];
}

/** A colour #rrggbb of the style sheet, partly transparent (a canvas does not read color-mix everywhere). */
function clear(colour: string, share: number): string {
  return `${colour}${Math.round(share * 255)
    .toString(16)
    .padStart(2, "0")}`;
}

function parts(lines: readonly Line[], small: boolean): Parts {
  const found: Parts = { tables: [], series: [{}], bands: [] };
  for (const line of lines) {
    const colour = token(line.colour);
    const faint = clear(colour, 0.4);
    const columns: (number | null)[][] = [];
    const add = (values: (number | null)[], series: uPlot.Series) => {
      columns.push(values);
      found.series.push({ spanGaps: true, points: { show: false }, ...series });
      return found.series.length - 1;
    };
    if (line.low && line.high) {
      const high = add(line.high, { stroke: faint, width: 0.5 });
      const low = add(line.low, { stroke: faint, width: 0.5 });
      found.bands.push({ series: [high, low], fill: clear(colour, 0.24) });
    } else if (line.y && !line.dots) {
      const lone = line.ema === undefined;
      add(line.y, { stroke: lone ? colour : faint, width: lone ? 1.5 : 1 });
    }
    if (line.dots && line.y) {
      add(line.y, {
        stroke: colour,
        width: 1,
        dash: [2, 4],
        points: {
          show: true,
          size: small ? 4 : 7,
          fill: colour,
          stroke: token("panel"),
          width: small ? 0 : 1.5,
        },
      });
    } else if (line.ema) add(line.ema, { stroke: colour, width: small ? 1.25 : 2 });
    if (columns.length > 0) found.tables.push([line.x, ...columns] as uPlot.AlignedData);
  }
  return found;
}

function clock(seconds: number): string {
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Number((s / 60).toFixed(1))} min`;
  return `${Number((s / 3600).toFixed(1))} h`;
}

export function Chart(props: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const shape = [
    theme.value,
    props.logX,
    props.logY,
    props.seconds,
    props.xName,
    props.small,
    ...props.lines.map((l) => `${l.colour} ${l.dots} ${!!l.low} ${!!l.ema} ${!!l.y}`),
  ].join("|");

  useEffect(() => {
    const element = host.current!;
    const { lines, small = false, height, logX, logY, seconds, ticks: named } = latest.current;
    const made = parts(lines, small);
    const ink = token("quiet");
    const grid = { stroke: token("line"), width: 1 };
    const font = `${small ? 10 : 11}px ${token("mono")}`;
    const axis = { stroke: ink, font, grid, ticks: { ...grid, size: 4 } };
    const positive: uPlot.Range.Function = (_, low, high) => {
      const bottom = low > 0 ? low : high > 0 ? high / 1e3 : 1;
      return [bottom, high > bottom ? high : bottom * 10];
    };
    const options: uPlot.Options = {
      width: Math.max(120, element.clientWidth),
      height,
      series: made.series,
      bands: made.bands,
      legend: { show: false },
      padding: small ? [6, 16, 0, 0] : [10, 14, 0, 0],
      cursor: {
        show: !small,
        points: { show: false },
        drag: { x: !small && latest.current.onZoom !== undefined, y: false, setScale: false },
      },
      scales: {
        x: { time: false, distr: logX ? 3 : 1, ...(logX ? { range: positive } : {}) },
        y: { distr: logY ? 3 : 1, ...(logY ? { range: positive } : {}) },
      },
      axes: [
        {
          ...axis,
          size: small ? 20 : named ? 44 : 30,
          space: small ? 70 : named ? 84 : 60,
          values: (_, ticks) =>
            ticks.map((v) =>
              v === null
                ? ""
                : latest.current.ticks
                  ? latest.current.ticks(v)
                  : seconds
                    ? clock(v)
                    : Math.abs(v) >= 1e4
                      ? short(v)
                      : figure(v),
            ),
        },
        {
          ...axis,
          size: small ? 40 : 56,
          space: small ? 26 : 34,
          values: (_, ticks) => ticks.map((v) => (v === null ? "" : figure(v))),
        },
      ],
      hooks: {
        setSelect: [
          (u) => {
            if (u.select.width < 4) return;
            const low = u.posToVal(u.select.left, "x");
            const high = u.posToVal(u.select.left + u.select.width, "x");
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            latest.current.onZoom?.(low, high);
          },
        ],
        setCursor: [
          (u) => {
            const left = u.cursor.left ?? -1;
            latest.current.onCursor?.(left < 0 ? undefined : u.posToVal(left, "x"));
          },
        ],
      },
    };
    const data = made.tables.length > 0 ? uPlot.join(made.tables) : ([[]] as unknown as uPlot.AlignedData);
    const drawn = new uPlot(options, data, element);
    plot.current = drawn;
    // it remembers where it stands on the page, and is not told when something above it grows
    const look = () => drawn.syncRect(true);
    for (const event of ["mousedown", "mousemove"]) element.addEventListener(event, look, { capture: true });
    const resize = new ResizeObserver(() => {
      const width = Math.max(120, element.clientWidth);
      if (width !== drawn.width || latest.current.height !== drawn.height)
        drawn.setSize({ width, height: latest.current.height });
      latest.current.onWidth?.(width);
    });
    resize.observe(element);
    return () => {
      resize.disconnect();
      for (const event of ["mousedown", "mousemove"])
        element.removeEventListener(event, look, { capture: true });
      drawn.destroy();
      plot.current = undefined;
    };
  }, [shape]);

  useEffect(() => {
    const drawn = plot.current;
    if (!drawn) return;
    const { tables } = parts(props.lines, props.small ?? false);
    if (tables.length === 0) return;
    drawn.setData(uPlot.join(tables), true);
    if (props.range) drawn.setScale("x", { min: props.range[0], max: props.range[1] });
  }, [props.lines, props.range?.[0], props.range?.[1], shape]);

  const move = (event: KeyboardEvent) => {
    const drawn = plot.current;
    const { onZoom, onReset } = latest.current;
    if (!drawn || !onZoom) return;
    const { min = 0, max = 1 } = drawn.scales.x as { min?: number; max?: number };
    const span = max - min;
    const to = (low: number, high: number) => {
      event.preventDefault();
      onZoom(low, high);
    };
    if (event.key === "+" || event.key === "=") to(min + span / 4, max - span / 4);
    else if (event.key === "-") to(min - span / 2, max + span / 2);
    else if (event.key === "ArrowLeft") to(min - span / 5, max - span / 5);
    else if (event.key === "ArrowRight") to(min + span / 5, max + span / 5);
    else if (event.key === "Home" || event.key === "0") {
      event.preventDefault();
      onReset?.();
    }
  };

  return (
    // biome-ignore lint/a11y/useAriaPropsSupportedByRole: both roles take a label
    // biome-ignore lint/a11y/noStaticElementInteractions: the double click only repeats what a key does
    <div
      ref={host}
      class="chart"
      data-control={props.control}
      role={props.control ? "application" : "img"}
      aria-label={props.label}
      tabIndex={props.control ? 0 : undefined}
      onKeyDown={props.control ? move : undefined}
      onDblClick={() => props.onReset?.()}
    />
  );
}

/** A curve the size of a word. */
export function Spark({ values, colour = "quiet" }: { values: readonly number[]; colour?: string }) {
  if (values.length < 2) return <svg class="spark" viewBox="0 0 60 18" aria-hidden="true" />;
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values.map(
    (v, i) =>
      `${((i / (values.length - 1)) * 58 + 1).toFixed(1)},${(16 - ((v - low) / span) * 14).toFixed(1)}`,
  );
  return (
    <svg class="spark" viewBox="0 0 60 18" aria-hidden="true">
      <polyline points={points.join(" ")} fill="none" stroke={`var(--${colour})`} stroke-width="1.3" />
    </svg>
  );
}
