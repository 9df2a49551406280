import { describe, expect, it } from "vitest";
import { readNumber } from "../src/controls/numbers";
import { dependencies } from "../src/screens/calculate/sheet";
import { foldedPlace } from "../src/screens/lattice/folded";
import { score } from "../src/state/commands";

describe("numbers as people type them", () => {
  it.each([
    ["12", 12],
    ["1_000", 1000],
    ["1e-3", 0.001],
    ["10^6", 1e6],
    ["−5", -5],
    ["1,000", 1000],
    ["", undefined],
    ["abc", undefined],
    ["1e999", undefined],
  ])("%s", (text, value) => expect(readNumber(text)).toBe(value));
});

describe("what a row of the sheet depends on", () => {
  const rows = ["x = 2", "y = x + 1", "7", "z = 3", "y * 2", "ans + 1"];
  it("is its variables and theirs, nothing else", () => {
    expect(dependencies(rows, 4)).toBe("x = 2\ny = x + 1\ny * 2");
    expect(dependencies(rows, 3)).toBe("z = 3");
  });
  it("is everything above for ans", () => {
    expect(dependencies(rows, 5).split("\n")).toHaveLength(6);
  });
  it("takes the last of several assignments, at least", () => {
    expect(dependencies(["a = 1", "a = 2", "a"], 2)).toContain("a = 2");
  });
});

describe("the folded clock", () => {
  const turn = Math.PI * 2;
  const ticks = Array.from({ length: 12 }, (_, i) => i);
  const f = {
    n: ticks,
    radius: ticks.map(() => 1),
    angle: ticks.map((i) => (i * turn) / 12),
    folded: ticks.map((i) => ([i, 6 - i, i - 6, 12 - i][Math.floor(i / 3)]! * turn) / 12),
    quadrant: ticks.map((i) => Math.floor(i / 3)),
    colour: ticks.map(() => ""),
    bright: ticks.map(() => true),
  };
  it("is the clock when flat", () => {
    for (const i of ticks) {
      const [x, y] = foldedPlace(f, i, 0);
      expect(Math.hypot(x - Math.sin(f.angle[i]!), y - Math.cos(f.angle[i]!))).toBeLessThan(1e-15);
    }
  });
  it("lies at the folded angle in the first quadrant when folded", () => {
    for (const i of ticks) {
      const [x, y, lift] = foldedPlace(f, i, 2);
      const r = 1 + 0.2 * f.quadrant[i]!;
      expect(x - r * Math.sin(f.folded[i]!)).toBeCloseTo(0, 12);
      expect(y - r * Math.cos(f.folded[i]!)).toBeCloseTo(0, 12);
      expect(lift).toBeCloseTo(0, 12);
    }
  });
});

describe("the palette's search", () => {
  it("wants every word and likes beginnings", () => {
    expect(score("Next prime Lattice", "prime ne")).toBeGreaterThan(0);
    expect(score("Next prime", "zeta")).toBe(-1);
    expect(score("Sacks spiral", "sa")).toBeGreaterThan(score("Ulam sacks", "sa"));
  });
});
