import { describe, expect, it } from "vitest";
import { DEFAULTS, pictureQuery, read, write } from "../src/screens/lattice/settings";
import { formatHash, parseHash } from "../src/state/route";

describe("the link", () => {
  it("holds every setting that is not the default, and no other", () => {
    const changed = {
      ...DEFAULTS,
      curve: "wheel",
      modulus: 210,
      polar: true,
      labels: false,
      x: -1.5,
      line: "1 1 41",
    };
    const hash = formatHash("lattice", write(changed));
    expect(read(parseHash(hash).params)).toEqual(changed);
    expect(write({ ...DEFAULTS })).toEqual({});
  });
  it("survives signs of its own", () => {
    const changed = { ...DEFAULTS, fx: "n^2 + 1 & 50% # ?", expression: "a=b" };
    expect(read(parseHash(formatHash("lattice", write(changed))).params)).toEqual(changed);
  });
  it("ignores what it does not know", () => {
    expect(read({ nonsense: "1", modulus: "abc" })).toEqual(DEFAULTS);
  });
});

describe("the question to the server", () => {
  it("asks for what the curve depends on and nothing else", () => {
    expect(pictureQuery({ ...DEFAULTS, curve: "sacks", modulus: 7, lap: 3 }, "dark", false)).toEqual({
      curve: "sacks",
      theme: "dark",
      colour: "prime",
    });
    expect(pictureQuery({ ...DEFAULTS, null: "odd", seed: 9 }, "light", true)).toEqual({
      curve: "ulam",
      start: 1,
      theme: "light",
      colour: "prime",
      null: 9,
      odd: true,
    });
  });
});
