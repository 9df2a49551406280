import { describe, expect, it } from "vitest";
import { numberAt, placeOf } from "../src/screens/lattice/inverse";
import { DEFAULTS, type Settings } from "../src/screens/lattice/settings";
import vectors from "./vectors/maps.json";

interface Case {
  curve: string;
  options: Partial<Settings>;
  n: number[];
  x: number[];
  y: number[];
}

// written by tests/studio/vectors.py from the Python maps
const cases: Case[] = vectors;

describe.each(cases)("$curve $options", ({ curve, options, n, x, y }) => {
  const settings: Settings = { ...DEFAULTS, start: 0, ...options, curve };
  it("finds every number at its place", () => {
    expect(n.map((_, i) => numberAt(settings, x[i]!, y[i]!))).toEqual(n);
  });
  it("puts every number where the Python does", () => {
    n.forEach((value, i) => {
      const [px, py] = placeOf(settings, value)!;
      // eight roundings of an angle below 2π at this radius
      const bound = 8 * 2 ** -52 * 2 * Math.PI * (1 + Math.hypot(x[i]!, y[i]!));
      expect(Math.hypot(px - x[i]!, py - y[i]!)).toBeLessThanOrEqual(bound);
    });
  });
});
