/** Numbers in few signs, and the geometry of histograms and maps. */
import type { Summary } from "./api";

/** About four digits: 0.01234, 1.234e-7. */
export function figure(x: number | null | undefined, digits = 4): string {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e-3 && size < 1e5) return String(Number(x.toPrecision(digits))).replace("-", "−");
  return x
    .toExponential(digits - 1)
    .replace(/\.?0+e/, "e")
    .replace("e+", "e")
    .replaceAll("-", "−");
}

/** An upper bound: two digits, never below it. */
export function above(x: number): string {
  if (x === 0) return "0";
  const power = 10 ** (Math.floor(Math.log10(x)) - 1);
  let digits = Math.ceil(x / power - 1e-9);
  while (Number(`${digits}e0`) * power < x) digits += 1;
  return figure(digits * power, 2);
}

export function whole(n: number): string {
  return n.toLocaleString("en");
}

export function shape(sizes: readonly number[]): string {
  return sizes.map((n) => String(n)).join(" × ");
}

export function percent(share: number): string {
  if (share === 0) return "0 %";
  if (share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** Heights from 0 to 1 of a histogram's bars; `log`: of log(1 + count). */
export function heights(counts: readonly number[], log: boolean): number[] {
  const of = (n: number) => (log ? Math.log1p(n) : n);
  const most = Math.max(...counts.map(of), 1e-9);
  return counts.map((n) => of(n) / most);
}

/** The outline of a histogram in a box of `width` × `height`. */
export function outline(counts: readonly number[], width: number, height: number, log: boolean): string {
  const bars = heights(counts, log);
  const step = width / Math.max(bars.length, 1);
  const top = (h: number) => (height * (1 - h)).toFixed(1);
  const points = bars.map((h, i) => `V${top(h)}H${((i + 1) * step).toFixed(1)}`);
  return `M0 ${height}${points.join("")}V${height}Z`;
}

/** Where 0 lies between the least and the largest, 0 to 1; undefined where it does not. */
export function zeroAt(s: Summary): number | undefined {
  if (s.min === null || s.max === null || s.min >= 0 || s.max <= 0) return undefined;
  return -s.min / (s.max - s.min);
}

export type Rgb = readonly [number, number, number];

/** A colour of the ramp through `stops` at t from 0 to 1. */
export function ramp(stops: readonly Rgb[], t: number): Rgb {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [stops[i]!, stops[i + 1]!];
  return [0, 1, 2].map((k) => Math.round(a[k]! + (b[k]! - a[k]!) * (at - i))) as unknown as Rgb;
}

export type Allowed = "yes" | "future" | "document";

/** Whether a query may see a key: not what comes later, and with a document mask nothing of another document. */
export function allowed(query: number, key: number, documents: readonly number[], masked: boolean): Allowed {
  if (key > query) return "future";
  return masked && documents[query] !== documents[key] ? "document" : "yes";
}

/** Blank signs as one sees them. */
export function visible(text: string): string {
  return text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍").replace(/ /g, "·") || "∅";
}
