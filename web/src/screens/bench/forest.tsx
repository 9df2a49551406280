/** Paired differences: a dot for each seed, the mean, its confidence interval, the line of no difference. */
import type { Cell, Comparison } from "./api";

export interface Scale {
  low: number;
  high: number;
}

/** One scale for all rows, with zero in it; a single far pair does not squeeze the rest: 4 % of room at both ends. */
export function scaleOf(cells: readonly Cell[]): Scale {
  const values = cells.flatMap((c) =>
    c.comparison
      ? [...c.comparison.differences, c.comparison.low ?? 0, c.comparison.high ?? 0].filter(Number.isFinite)
      : [],
  );
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const room = (high - low || 1) * 0.04;
  return { low: low - room, high: high + room };
}

/** 0 … 100 from left to right. */
export function place(value: number, { low, high }: Scale): number {
  return (100 * (value - low)) / (high - low);
}

export function tone(verdict: string): "good" | "warm" | "quiet" {
  return verdict === "lower" ? "good" : verdict === "higher" ? "warm" : "quiet";
}

export function signed(value: number | null, digits = 3): string {
  if (value === null || !Number.isFinite(value)) return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

interface ForestProps {
  of: Comparison;
  scale: Scale;
}

export function Forest({ of, scale }: ForestProps) {
  const at = (value: number) => `${place(value, scale).toFixed(2)}%`;
  const interval = of.low !== null && of.high !== null;
  return (
    <svg class={`forest forest-${tone(of.verdict)}`} aria-hidden="true">
      <line class="forest-zero" x1={at(0)} x2={at(0)} y1="0" y2="100%" />
      {of.differences.map((d, i) => (
        <circle key={i} class="forest-pair" cx={at(d)} cy="50%" r="2.6" />
      ))}
      {interval && (
        <rect
          class="forest-interval"
          x={at(of.low!)}
          width={`${(place(of.high!, scale) - place(of.low!, scale)).toFixed(2)}%`}
          y="8"
          height="8"
          rx="3"
        />
      )}
      {of.mean_difference !== null && (
        <line class="forest-mean" x1={at(of.mean_difference)} x2={at(of.mean_difference)} y1="4" y2="20" />
      )}
    </svg>
  );
}
