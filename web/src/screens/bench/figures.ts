/** Columns and figures of a measurement as one reads them. */
import type { Measurement, Row, Value } from "./api";

export type Sort = "ratio" | "share" | "spread" | "target" | "figure";

export interface Column {
  key: string;
  title: string;
  /** What it means, where the title does not say it. */
  hint?: string;
  sort: Sort;
  /** Every figure of it is a whole number. */
  whole?: boolean;
}

const KNOWN: Record<string, [string, string?]> = {
  ms: ["median, ms", "The median of the samples, milliseconds a call"],
  s: ["s", "Seconds"],
  cpu_s: ["cpu, s", "Seconds of processor time"],
  spread: ["spread", "The interquartile range over the median: how much the samples scatter"],
  within_target: ["target", "Whether it is within the project's target"],
  in_target: ["target", "Whether it is within the project's target"],
  tokens_per_s: ["tokens/s"],
  times_ours: ["× ours", "How many times as long as our step in the same precision, paired by round"],
  times_ours_bf16: ["× ours bf16", "How many times as long as our step in bf16, paired by round"],
  ratio: ["× ours", "The peer's time over ours, paired by round: above 1, ours is faster"],
  peak_fraction: ["of the peak", "Share of what the arithmetic units can do, measured in the same minutes"],
  limit_fraction: ["of the limit", "Share of what arithmetic and memory allow, measured in the same minutes"],
  memory_fraction: ["of the memory's speed", "Share of the measured reading speed"],
  step_fraction: ["of the step"],
  peak_rss_mb: ["peak memory, MB"],
};

const RATIO = /(^|_)ratio$|^times_/;
const SHARE = /_fraction$/;

/** A column's key as the measurement names it, in words. */
export function column(key: string): Column {
  const known = KNOWN[key];
  const sort: Sort =
    key === "spread"
      ? "spread"
      : /_target$/.test(key)
        ? "target"
        : RATIO.test(key)
          ? "ratio"
          : SHARE.test(key)
            ? "share"
            : "figure";
  if (known) return { key, title: known[0], sort, ...(known[1] ? { hint: known[1] } : {}) };
  const peer = /^(.+)_ratio$/.exec(key)?.[1];
  if (peer)
    return {
      key,
      title: `× ${peer}`,
      hint: `${peer}'s time over ours, in pairs of the same round: above 1, ours is faster`,
      sort,
    };
  const words = key
    .replace(/_fraction$/, ", share")
    .replace(/_gb_s$/, ", GB/s")
    .replace(/(^|_)gflops$/, ", Gflop/s")
    .replace(/^gflop$/, "Gflop")
    .replace(/^mb$/, "MB")
    .replace(/_mb$/, ", MB")
    .replace(/_gb$/, ", GB")
    .replace(/_ms$/, ", ms")
    .replace(/_s$/, ", s")
    .replaceAll("_", " ");
  return { key, title: words, sort };
}

/** Every figure's key, in the order of first appearance; columns in which nothing stands are left out. */
export function columns(rows: readonly Row[]): Column[] {
  const keys = new Set<string>();
  const broken = new Set<string>();
  for (const row of rows)
    for (const [key, value] of Object.entries(row)) {
      if (key !== "name" && value !== null) keys.add(key);
      if (typeof value === "number" && !Number.isInteger(value)) broken.add(key);
    }
  return [...keys].map((key) => ({ ...column(key), whole: !broken.has(key) }));
}

/** A figure with four digits at most, its thousands apart. */
export function plain(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(2).replace("e-", "e−").replace("e+", "e");
  if (size >= 1000)
    return Math.round(value).toLocaleString("en-US").replaceAll(",", "\u2009").replace("-", "−");
  const digits = size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return value.toFixed(digits).replace("-", "−");
}

export function text(of: Column, value: Value | undefined): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  if (of.sort === "spread" || of.sort === "share") return `${(100 * value).toFixed(1)}\u202f%`;
  if (of.sort === "ratio") return `${plain(value)}\u202f×`;
  if (of.whole && Math.abs(value) < 1e9) return plain(value).replace(/\.0+$/, "");
  return plain(value);
}

/** How far a ratio's bar reaches, −1 … 1: a factor of 16 or more fills it; right of the middle is ours faster. */
export function reach(ratio: number): number {
  return Math.max(-1, Math.min(1, Math.log2(Math.max(ratio, 1e-9)) / 4));
}

/** The commit as it is written on an axis; a + behind it: files differed from it. */
export function short(commit: string | null): string {
  if (!commit) return "no commit";
  return commit.slice(0, 7) + (commit.endsWith("+") ? "+" : "");
}

export interface Point {
  measurement: Measurement;
  value: number;
  spread: number | null;
}

/** One figure of one row through all measurements. */
export function points(all: readonly Measurement[], row: string, key: string): Point[] {
  const found: Point[] = [];
  for (const measurement of all) {
    const line = measurement.rows.find((r) => r.name === row);
    const value = line?.[key];
    if (typeof value === "number" && Number.isFinite(value)) {
      const spread = key === "ms" && typeof line?.spread === "number" ? line.spread : null;
      found.push({ measurement, value, spread });
    }
  }
  return found;
}

/** Machines in the order in which they first measured; each keeps its colour. */
export function machines(all: readonly Measurement[]): { key: string; name: string }[] {
  const seen = new Map<string, string>();
  for (const m of all) if (!seen.has(m.machine.key)) seen.set(m.machine.key, m.machine.name);
  const names = [...seen.values()];
  return [...seen].map(([key, name], i) => ({
    key,
    // two machines of one name differ in what they can do: numbered
    name: names.filter((n) => n === name).length > 1 ? `${name} (${i + 1})` : name,
  }));
}

/** "22 Nov 2026, 05:19" from the date of a measurement (UTC). */
export function day(date: string): string {
  const time = new Date(date);
  if (Number.isNaN(time.getTime())) return date;
  const month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const two = (n: number) => String(n).padStart(2, "0");
  return `${time.getUTCDate()} ${month[time.getUTCMonth()]} ${time.getUTCFullYear()}, ${two(time.getUTCHours())}:${two(time.getUTCMinutes())}`;
}
