import { expect, it } from "vitest";
import type { Row } from "../src/screens/train/api";
import { valueAt } from "../src/screens/train/legend";
import { arranged } from "../src/screens/train/runs";
import { ago, bytes, count, duration, figure, loss, metricName, short } from "../src/screens/train/words";

it("says numbers as one reads them", () => {
  expect([0, 7, 0.5, 999, 43_904, 1_234_567, 2.1e9].map(short)).toEqual([
    "0",
    "7",
    "0.50",
    "999",
    "43.9\u202fk",
    "1.23\u202fM",
    "2.10\u202fG",
  ]);
  expect([short(null), short(Number.NaN), loss(undefined)]).toEqual(["–", "–", "–"]);
  expect(count(1234567)).toBe("1\u2009234\u2009567");
  expect([0, 999, 1000, 174_000, 25.3e9].map(bytes)).toEqual([
    "0\u202fB",
    "999\u202fB",
    "1.00\u202fkB",
    "174\u202fkB",
    "25.3\u202fGB",
  ]);
  expect([3.4567, 2.3e18].map((v) => loss(v))).toEqual(["3.457", "2.3e18"]);
  expect([0, 0.001, 1e-4, 2.71234, 123456, -2].map(figure)).toEqual([
    "0",
    "0.001",
    "1.0e−4",
    "2.712",
    "123\u202fk",
    "−2",
  ]);
});

it("says times as one reads them", () => {
  expect([0, 59.4, 60, 605, 3600, 86_400 * 3.2].map(duration)).toEqual([
    "0 s",
    "59 s",
    "1 min 00 s",
    "10 min",
    "1 h 00 min",
    "3 d 4 h",
  ]);
  expect([1000, 950, 800, 1000 - 7200].map((t) => ago(t, 1000))).toEqual([
    "just now",
    "50 s ago",
    "3 min ago",
    "2 h ago",
  ]);
});

it("names metrics", () => {
  expect(metricName("step.loss")).toBe("training loss");
  expect(metricName("eval.some_thing.x")).toBe("validation: some thing x");
  expect(metricName("step.grad_norm.attention")).toBe("grad norm attention");
});

it("finds the nearest point of a curve", () => {
  const curve = { points: 3, bad: [], x: [1, 10, 100], y: [5, 6, 7] };
  expect([0, 5, 6, 54, 56, 1e9].map((x) => valueAt(curve, x))).toEqual([5, 5, 6, 6, 7, 7]);
  expect(valueAt({ points: 0, bad: [], x: [], y: [] }, 1)).toBeUndefined();
});

it("filters and orders runs", () => {
  const row = (name: string, best: number | null, changed: number, state = "done") =>
    ({ name, best, changed, state, preset: "nano" }) as Row;
  const list = [
    row("runs/b", 2, 1),
    row("runs/a", null, 5),
    row("runs/c", 1, 3),
    row("runs/live", 9, 0, "running"),
  ];
  const names = (typed: string, by: string) => arranged(list, typed, by).map((r) => r.name.slice(5));
  expect(names("", "newest")).toEqual(["live", "a", "c", "b"]);
  expect(names("", "name")).toEqual(["a", "b", "c", "live"]);
  expect(names("", "best")).toEqual(["c", "b", "live", "a"]);
  expect(names("done nano", "name")).toEqual(["a", "b", "c"]);
  expect(names("zzz", "name")).toEqual([]);
});
