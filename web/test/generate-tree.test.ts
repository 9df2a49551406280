import { describe, expect, it } from "vitest";
import {
  EMPTY,
  fork,
  grow,
  listed,
  meanNats,
  type Piece,
  pathOf,
  prune,
  tint,
  visible,
} from "../src/screens/generate/tree";

const piece = (id: number, nats = 1): Piece => ({
  id,
  text: `t${id}`,
  nats,
  p: 0.3,
  q: 0.4,
  kept: 9,
  top: [],
});
const ids = (pieces: Piece[]) => pieces.map((p) => p.id);

describe("a text and its branches", () => {
  const first = grow(
    EMPTY,
    0,
    [1, 2, 3, 4, 5].map((n) => piece(n)),
  );

  it("grows at its end", () => {
    expect(ids(pathOf(first))).toEqual([1, 2, 3, 4, 5]);
    expect(ids(pathOf(grow(first, 0, [piece(6)])))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(pathOf(EMPTY)).toEqual([]);
  });

  it("forks where another token is taken, and the old text stays", () => {
    const forked = fork(first, 2, [9, "nine", 0.5, 0.25]);
    expect(ids(pathOf(forked))).toEqual([1, 2, 9]);
    expect(pathOf(forked)[2]).toMatchObject({
      forced: true,
      text: "nine",
      p: 0.5,
      q: 0.25,
      nats: Math.log(2),
    });
    expect(ids(pathOf(forked, 0))).toEqual([1, 2, 3, 4, 5]);
    const grown = grow(forked, forked.current, [piece(7), piece(8)]);
    expect(ids(pathOf(grown))).toEqual([1, 2, 9, 7, 8]);
  });

  it("keeps the tree shallow: a fork in the shared part belongs to the branch that owns it", () => {
    let tree = fork(first, 3, [9, "", 0.1, 0.1]);
    tree = grow(tree, tree.current, [piece(7), piece(8)]);
    const shared = fork(tree, 1, [6, "", 0.1, 0.1]);
    expect(shared.branches.at(-1)).toMatchObject({ parent: 0, at: 1 });
    const own = fork(tree, 4, [5, "", 0.1, 0.1]);
    expect(own.branches.at(-1)).toMatchObject({ parent: tree.current, at: 4 });
    expect(ids(pathOf(own))).toEqual([1, 2, 3, 9, 5]);
  });

  it("finds a branch that was there before", () => {
    const once = fork(first, 2, [9, "", 0.1, 0.1]);
    const back = { ...once, current: 0 };
    expect(fork(back, 2, [9, "", 0.1, 0.1])).toEqual(once);
    expect(fork(first, 99, [9, "", 0.1, 0.1])).toBe(first);
  });

  it("prunes a branch with all that grew from it", () => {
    let tree = fork(first, 2, [9, "", 0.1, 0.1]);
    tree = grow(tree, tree.current, [piece(7)]);
    const middle = tree.current;
    tree = fork(tree, 3, [8, "", 0.1, 0.1]);
    expect(listed(tree).map(({ branch, depth }) => [branch.id, depth])).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
    ]);
    const pruned = prune(tree, middle);
    expect(pruned.branches.map((b) => b.id)).toEqual([0]);
    expect(pruned.current).toBe(0);
    expect(prune(tree, 0)).toEqual(EMPTY);
  });
});

describe("surprise", () => {
  it("counts only what the model drew itself", () => {
    expect(meanNats([piece(1, 2), { ...piece(2, 50), forced: true }, piece(3, 4)])).toBe(3);
    expect(meanNats([])).toBeUndefined();
  });
  it("is tinted in steps of 0.75 nats, at most 8", () => {
    expect([0, 0.74, 0.75, 5.9, 6, 99].map(tint)).toEqual([0, 0, 1, 7, 8, 8]);
  });
});

it("makes invisible characters visible", () => {
  expect(visible("")).toBe("∅");
  expect(visible(" a b ")).toBe("␣a b␣");
  expect(visible("\n\t")).toBe("↵⇥");
  expect(visible("  ")).toBe("␣␣");
});
