import { describe, expect, it } from "vitest";
import type { Cloud, Structure } from "../src/screens/inside/api";
import { habit } from "../src/screens/inside/attention";
import { blocksOf } from "../src/screens/inside/blocks";
import { share } from "../src/screens/inside/certificate";
import { readable } from "../src/screens/inside/cloud";
import {
  frameOf,
  hues,
  level,
  oklch,
  sceneOf,
  stretch,
  tints,
  under,
} from "../src/screens/inside/cloud-scene";
import {
  above,
  allowed,
  figure,
  heights,
  outline,
  percent,
  ramp,
  visible,
  zeroAt,
} from "../src/screens/inside/figures";
import { stage, strength } from "../src/screens/inside/lens";
import { shade } from "../src/screens/inside/map";
import { sorted } from "../src/screens/inside/tensors";
import { rotation } from "../src/screens/lattice/space-model";

const summary = {
  name: "a",
  shape: [4],
  count: 4,
  nan: 0,
  infinite: 0,
  zeros: 0,
  norm: 2,
  rms: 1,
  mean: 0,
  std: 1,
  min: -1,
  max: 3,
  counts: [1, 0, 3],
};

describe("figures", () => {
  it("say a number in few signs", () => {
    expect([0, 0.012345, -2.5, 1.23456e-7, 12345.6, 1e9].map((x) => figure(x))).toEqual([
      "0",
      "0.01235",
      "−2.5",
      "1.235e−7",
      "12350",
      "1e9",
    ]);
    expect(figure(null)).toBe("–");
  });
  it("never say a bound that is too small", () => {
    for (const x of [1.4e-6, 0.0999, 1.0001, 7.65e-29, 0.012, 2e-4, 123.4]) {
      const said = Number(above(x).replace("−", "-"));
      expect(said).toBeGreaterThanOrEqual(x);
      expect(said).toBeLessThanOrEqual(1.11 * x);
    }
    expect(above(0)).toBe("0");
  });
  it("say shares", () => {
    expect([0, 0.0001, 0.051, 0.5].map(percent)).toEqual(["0 %", "< 0.1 %", "5.1 %", "50 %"]);
  });
  it("draw histograms to their largest bar", () => {
    expect(heights([1, 0, 4], false)).toEqual([0.25, 0, 1]);
    expect(heights([1, 0, 3], true)).toEqual([Math.log(2) / Math.log(4), 0, 1]);
    expect(outline([1, 2], 10, 4, false)).toBe("M0 4V2.0H5.0V0.0H10.0V4Z");
    expect(zeroAt(summary)).toBe(0.25);
    expect(zeroAt({ ...summary, min: 1 })).toBeUndefined();
  });
  it("go through the stops of a ramp", () => {
    const stops = [
      [0, 0, 0],
      [100, 50, 0],
      [200, 50, 10],
    ] as const;
    expect(ramp(stops, 0)).toEqual([0, 0, 0]);
    expect(ramp(stops, 0.25)).toEqual([50, 25, 0]);
    expect(ramp(stops, 1)).toEqual([200, 50, 10]);
    expect(ramp(stops, 7)).toEqual([200, 50, 10]);
  });
  it("shade a weight by itself, its root, or its part of the row", () => {
    expect(shade(0.25, 0.5, "linear")).toBe(0.25);
    expect(shade(0.25, 0.5, "root")).toBe(0.5);
    expect(shade(0.125, 0.5, "row")).toBe(0.5);
    expect(shade(0, 0, "row")).toBe(0);
  });
  it("know what a query may see", () => {
    const documents = [0, 0, 1];
    expect(allowed(1, 0, documents, true)).toBe("yes");
    expect(allowed(0, 1, documents, true)).toBe("future");
    expect(allowed(2, 1, documents, true)).toBe("document");
    expect(allowed(2, 1, documents, false)).toBe("yes");
  });
  it("show blank signs", () => {
    expect(visible(" a\n")).toBe("·a↵");
    expect(visible("")).toBe("∅");
  });
});

const tensors = (list: [string, number[]][]) =>
  list.map(([name, shape]) => ({
    name,
    shape,
    count: shape.reduce((a, b) => a * b, 1),
    trained: !name.startsWith("table."),
  }));

const layer = (i: number): [string, number[]][] => [
  ...["wq", "wk", "wv", "wo"].map((n): [string, number[]] => [`${i}.attn.${n}`, [4, 4]]),
  [`${i}.ffn.w1`, [6, 4]],
  [`${i}.ffn.w2`, [4, 6]],
  ...["ln1.g", "ln1.b", "attn.bq", "attn.bk", "attn.bv", "attn.bo", "ln2.g", "ln2.b", "ffn.b2"].map(
    (n): [string, number[]] => [`${i}.${n}`, [4]],
  ),
  [`${i}.ffn.b1`, [6]],
];

const structure: Structure = {
  checkpoint: "step-00000001",
  precision: "fp32",
  document_mask: false,
  model: {
    layers: 2,
    width: 4,
    heads: 2,
    ff: 6,
    context: 8,
    vocab: 10,
    positions: "learned",
    activation: "gelu_tanh",
    tied: true,
    symmetry_bias: 0,
    symmetry_bias_trainable: false,
    lattice_transform: false,
  },
  tensors: tensors([
    ["tok", [10, 4]],
    ["pos", [8, 4]],
    ...layer(0),
    ...layer(1),
    ["lnf.g", [4]],
    ["lnf.b", [4]],
  ]),
};

describe("blocks", () => {
  it("hold every tensor once and count every parameter once", () => {
    const found = blocksOf(structure);
    const blocks = [...found.all.values()];
    const held = blocks.flatMap((b) => (b.id === "head" ? [] : b.tensors.map((t) => t.name)));
    expect([...held].sort()).toEqual(structure.tensors.map((t) => t.name).sort());
    const sum = (all: { parameters: number }[]) => all.reduce((n, b) => n + b.parameters, 0);
    expect(sum(blocks)).toBe(found.parameters);
    expect(found.parameters).toBe(structure.tensors.reduce((n, t) => n + t.count, 0));
    expect(found.layers[1]!.parameters).toBe(sum([...found.layers[1]!.attention, ...found.layers[1]!.feed]));
    expect(found.all.get("1.ffn.w1")).toMatchObject({ layer: 1, input: "T × 4", output: "T × 6" });
    expect(found.head.tensors.map((t) => t.name)).toEqual(["tok"]);
  });
  it("show fixed tables without counting them", () => {
    const rope = {
      ...structure,
      model: { ...structure.model, positions: "rope", tied: false },
      tensors: [
        ...structure.tensors.filter((t) => t.name !== "pos"),
        ...tensors([
          ["head.w", [10, 4]],
          ["table.rope.cos", [8, 1]],
          ["table.rope.sin", [8, 1]],
        ]),
      ],
    };
    const found = blocksOf(rope);
    expect(found.all.get("0.attn")!.tensors.map((t) => t.name)).toEqual(["table.rope.cos", "table.rope.sin"]);
    expect(found.all.get("0.attn")!.parameters).toBe(0);
    expect(found.head.parameters).toBe(40);
  });
});

describe("words and orders", () => {
  it("name what a head does", () => {
    const flat = { previous: 0.2, first: 0.2, own: 0.2 };
    let even = 0;
    for (let i = 2; i <= 10; i++) even += Math.log(i) / 9;
    expect(habit({ ...flat, previous: 0.8, entropy: 0.5 }, 10)).toBe("looks one back");
    expect(habit({ ...flat, first: 0.6, entropy: 0.5 }, 10)).toBe("looks at the first");
    expect(habit({ ...flat, own: 0.6, entropy: 0.5 }, 10)).toBe("looks at itself");
    expect(habit({ ...flat, entropy: even }, 10)).toBe("spread evenly");
    expect(habit({ ...flat, entropy: 0.1 }, 10)).toBe("sharp");
    expect(habit({ previous: null, first: null, own: null, entropy: null }, 1)).toBe("");
  });
  it("name and tint the stages of the lens", () => {
    expect([0, 1, 2].map((at) => stage(at, 2))).toEqual(["embedding", "layer 0", "output"]);
    const line = {
      at: 0,
      top: [[3]],
      p: [[0.7]],
      entropy: [Math.log(4)],
      next: [[0.25, 1] as [number, number]],
      texts: {},
    };
    expect(strength(line, 0, "p", 16)).toBe(0.7);
    expect(strength(line, 0, "next", 16)).toBe(0.25);
    expect(strength(line, 0, "entropy", 16)).toBeCloseTo(0.5, 12);
  });
  it("sort tensors by a figure", () => {
    const rows = [1, 3, 2].map((norm, i) => ({ ...summary, name: String(i), norm }));
    const names = (key: string, down: boolean) => sorted(rows, { key, down }).map((r) => r.name);
    expect(names("", true)).toEqual(["0", "1", "2"]);
    expect(names("norm", true)).toEqual(["1", "2", "0"]);
    expect(names("norm", false)).toEqual(["0", "2", "1"]);
  });
  it("draw how much of a budget is taken", () => {
    expect([3, 1, 0.5, 0].map((x) => share(x, 2))).toEqual([1, 0.5, 0.25, 0]);
    expect(share(1, null)).toBe(0);
  });
  it("leave out labels that would lie over others", () => {
    const label = (id: number, x: number, y: number) => ({ id, text: "abc", x, y });
    const kept = readable([label(0, 0, 0), label(1, 5, 3), label(2, 5, 40), label(3, 200, 2)]);
    expect(kept.map((l) => l.id)).toEqual([0, 2, 3]);
  });
});

const cloud: Cloud = {
  vocab: 3,
  width: 4,
  shares: [0.5, 0.125, 0],
  classes_of: "id",
  ids: [4, 5, 6],
  texts: ["a", "b", "c"],
  xyz: [
    [1, 0, 0],
    [-1, 0.5, 0],
    [0, 0, 1],
  ],
  norms: [1, 2, 3],
  counts: [0, 9, 99],
  primes: [11, 13, 17],
  id_classes: [4, 5, 6],
  prime_classes: [11, 1, 5],
};

describe("the cloud", () => {
  it("has twelve different hues that can be told from the ground", () => {
    for (const dark of [true, false]) {
      const all = hues(dark);
      expect(new Set(all.map(String)).size).toBe(12);
      for (const c of all) for (const part of c) expect(part).toBeGreaterThanOrEqual(0);
    }
    expect(oklch(1, 0, 0)).toEqual([255, 255, 255]);
    expect(oklch(0, 0, 0)).toEqual([0, 0, 0]);
  });
  it("colours by class, prime, frequency or norm", () => {
    const shades = [
      [0, 0, 0],
      [200, 0, 0],
    ] as const;
    expect(tints(cloud, "class", true, shades)).toEqual([4, 5, 6].map((i) => hues(true)[i]));
    expect(tints(cloud, "prime", true, shades)).toEqual([11, 1, 5].map((i) => hues(true)[i]));
    expect(tints(cloud, "norm", true, shades).map((c) => c[0])).toEqual([0, 100, 200]);
    expect(level(cloud, "frequency")).toEqual([0, 0.5, 1]);
  });
  it("stretches its directions to one width", () => {
    expect(stretch(cloud)).toEqual([1, 2, 1]);
  });
  it("draws a ball a token, and strokes to the neighbours of one", () => {
    const colours = tints(cloud, "class", true, []);
    const view = frameOf(cloud);
    expect(sceneOf(cloud, view, colours, undefined).balls).toHaveLength(3);
    const near = {
      id: 4,
      text: "a",
      xyz: [1, 0, 0] as [number, number, number],
      norm: 1,
      prime: 11,
      near: [{ id: 6, text: "c", xyz: [0, 0, 1] as [number, number, number], cosine: 0.5 }],
      others: [],
    };
    const scene = sceneOf(cloud, view, colours, near);
    expect(scene.balls).toHaveLength(3);
    expect(scene.strokes).toHaveLength(1);
    for (const ball of scene.balls) expect(Math.hypot(...ball.at)).toBeLessThanOrEqual(scene.reach);
  });
  it("finds the token under a point, the one in front first", () => {
    const flat = rotation(0, Math.PI / 2);
    const view = { centre: [0, 0, 0] as [number, number, number], edge: 1 };
    const [x, y] = [flat[0]! * 1, flat[3]! * 1];
    expect(under(cloud, view, flat, 100, 100 * x, -100 * y)).toBe(0);
    expect(under(cloud, view, flat, 100, 400, 400)).toBeUndefined();
  });
});
