/** What the curves are called, and their values where the pointer is. */
import type { Curve, RunCurves } from "./api";
import { colourOf } from "./runs";
import { BY_GROUP, figure, GROUPS, metricName, PARTNER, short } from "./words";

export function last(curve: Curve | undefined): number | undefined {
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
  found: Record<string, RunCurves>;
  metric: string;
  cursor: number | undefined;
  points: number;
  scatter: boolean;
  bad: number[];
}

export function Legend({ runs, found, metric: name, cursor, points, scatter, bad }: LegendProps) {
  const partner = PARTNER[name];
  return (
    <div class="legend mono">
      {name === BY_GROUP &&
        GROUPS.map((group, i) => {
          const curve = found[runs[0]!]?.metrics[group];
          if (!curve) return null;
          const value = cursor === undefined || scatter ? last(curve) : valueAt(curve, cursor);
          return (
            <span key={group} class="legend-run">
              <span class="swatch" style={{ background: `var(--${colourOf(i)})` }} aria-hidden="true" />
              {metricName(group).split(": ").pop()} <b>{value === undefined ? "–" : figure(value)}</b>
            </span>
          );
        })}
      {(name === BY_GROUP ? [] : runs).map((run, place) => {
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
