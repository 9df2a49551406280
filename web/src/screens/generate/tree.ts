/** A text and its branches. A branch shares its parent's first tokens and goes on by itself. */
import type { Alternative, Token } from "./api";

export interface Piece extends Token {
  /** Chosen by hand, where a branch begins. */
  forced?: boolean;
}

export interface Branch {
  id: number;
  /** −1: from the prompt. */
  parent: number;
  /** Tokens of the parent's path before this branch's own. */
  at: number;
  own: Piece[];
  end?: string | undefined;
}

export interface Tree {
  branches: readonly Branch[];
  current: number;
}

export const EMPTY: Tree = { branches: [{ id: 0, parent: -1, at: 0, own: [] }], current: 0 };

export function branch(tree: Tree, id = tree.current): Branch {
  return tree.branches.find((b) => b.id === id)!;
}

/** All tokens from the prompt to the end of a branch. */
export function pathOf(tree: Tree, id = tree.current): Piece[] {
  const found = branch(tree, id);
  return found.parent < 0 ? found.own : [...pathOf(tree, found.parent).slice(0, found.at), ...found.own];
}

/** The branch gets more tokens. */
export function grow(tree: Tree, id: number, pieces: readonly Piece[], end?: string): Tree {
  return {
    ...tree,
    branches: tree.branches.map((b) => (b.id === id ? { ...b, own: [...b.own, ...pieces], end } : b)),
  };
}

/** A new branch that takes another token in place of the one at `place` of the current path, and is current. */
export function fork(tree: Tree, place: number, alternative: Alternative): Tree {
  const path = pathOf(tree);
  const there = path[place];
  if (!there) return tree;
  const [id, text, p, q] = alternative;
  // the branch begins at the deepest one that owns the place, so that the tree stays as shallow as it is
  let owner = branch(tree);
  while (owner.parent >= 0 && place < owner.at) owner = branch(tree, owner.parent);
  const same = tree.branches.find((b) => b.parent === owner.id && b.at === place && b.own[0]?.id === id);
  if (same) return { ...tree, current: same.id };
  const next = Math.max(...tree.branches.map((b) => b.id)) + 1;
  const first: Piece = {
    ...there,
    id,
    text,
    p,
    q,
    nats: p > 0 ? Math.max(0, -Math.log(p)) : 99,
    forced: true,
  };
  return {
    branches: [...tree.branches, { id: next, parent: owner.id, at: place, own: [first] }],
    current: next,
  };
}

/** Take a branch and all that grew from it away; its parent is current then. */
export function prune(tree: Tree, id: number): Tree {
  const gone = new Set([id]);
  for (let before = 0; before !== gone.size; ) {
    before = gone.size;
    for (const b of tree.branches) if (gone.has(b.parent)) gone.add(b.id);
  }
  const parent = branch(tree, id).parent;
  if (parent < 0) return EMPTY;
  return {
    branches: tree.branches.filter((b) => !gone.has(b.id)),
    current: gone.has(tree.current) ? parent : tree.current,
  };
}

/** The branches in the order of a tree drawn as a list, with how deep each stands. */
export function listed(tree: Tree): { branch: Branch; depth: number }[] {
  const found: { branch: Branch; depth: number }[] = [];
  const visit = (parent: number, depth: number) => {
    for (const b of tree.branches.filter((x) => x.parent === parent).sort((x, y) => x.at - y.at)) {
      found.push({ branch: b, depth });
      visit(b.id, depth + 1);
    }
  };
  visit(-1, 0);
  return found;
}

/** Mean surprise in nats of the tokens that the model chose itself. */
export function meanNats(path: readonly Piece[]): number | undefined {
  const drawn = path.filter((t) => !t.forced);
  if (drawn.length === 0) return undefined;
  return drawn.reduce((sum, t) => sum + t.nats, 0) / drawn.length;
}

/** How strongly a token is tinted, 0 … 8: a step for each 0.75 nats of surprise. */
export function tint(nats: number): number {
  return Math.min(8, Math.floor(nats / 0.75));
}

/** A token's text with what cannot be seen made visible. */
export function visible(text: string): string {
  if (text === "") return "∅";
  return text
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/^ +| +$/g, (s) => "␣".repeat(s.length));
}
