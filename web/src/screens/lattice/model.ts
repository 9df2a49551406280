/** What the parts of the screen share: the selected number, the overlay, the hovered number; and the questions asked. */
import { signal } from "@preact/signals";
import { ApiError, get, isAbort, tell } from "../../api/client";
import { reducedMotion } from "../../state/theme";
import { counted } from "./busy";
import { placeOf } from "./inverse";
import { change, query, type Settings, settings } from "./settings";
import { glideTo, moves, paneSize, placeView, view } from "./view";

export interface Curve {
  name: string;
  title: string;
  rule: string;
  kind: "cells" | "sectors" | "dots" | "points";
  least: number;
  home: [number, number, number];
}

export interface About {
  curves: Curve[];
  colours: string[];
  names: string[];
  most: number;
}

export interface NumberFacts {
  n: string;
  digits: number;
  shown: boolean;
  prime: boolean | null;
  factors?: [string, number][];
  big_omega?: number;
  omega?: number;
  mobius?: number;
  divisors?: number;
  divisor_sum?: string;
  totient?: string;
  rank?: number;
  next?: string;
  previous?: string | null;
  places: { curve: string; title: string; place: string }[];
}

export interface Line {
  formula: string;
  n: number[];
  x: number[];
  y: number[];
  prime: boolean[];
  primes: number;
  terms: number;
  chance: number;
  discriminant: number;
}

export const about = signal<About | undefined>(undefined);
export const facts = signal<NumberFacts | undefined>(undefined);
export const factsBusy = signal(false);
export const factsError = signal<string | undefined>(undefined);
/** Where the selected number lies in the world of the open curve. */
export const mark = signal<{ x: number; y: number } | undefined>(undefined);
export const line = signal<Line | undefined>(undefined);
export const hovered = signal<{ n: string; x: number; y: number } | undefined>(undefined);
export const waiting = signal(0);

export function curveOf(s: Settings): Curve | undefined {
  return about.value?.curves.find((c) => c.name === s.curve);
}

/** Each call gives up what the call before asked for. */
export function latest(): () => AbortSignal {
  let controller = new AbortController();
  return () => {
    controller.abort();
    controller = new AbortController();
    return controller.signal;
  };
}

const numberTurn = latest();
const placeTurn = latest();
const lineTurn = latest();
const homeTurn = latest();

/** Show the first view of the open curve. */
export async function goHome(): Promise<void> {
  const s = settings.peek();
  const turn = homeTurn();
  const before = moves();
  if (s.curve === "space") return;
  const frame = (x: number, y: number, width: number) => {
    const { width: w, height: h } = paneSize.peek();
    const scale = width / Math.max(1, Math.min(w, h * 1.25));
    glideTo({ x, y, scale }, reducedMotion.peek());
  };
  if (s.curve === "folded-clock") {
    const laps = Math.max(1, Math.ceil(s.count / 232));
    frame(0, 0, 2 * (4 * laps + 2) * 1.12);
    return;
  }
  try {
    const home = await counted(() =>
      get<{ x: number; y: number; width: number }>("/api/lattice/home", query.peek(), turn),
    );
    if (moves() === before) frame(home.x, home.y, home.width);
  } catch (error) {
    tell(error);
  }
}

/** Put a number into the inspector; of any size. `move`: also bring it to the middle of the picture. */
export async function select(text: string, move: boolean): Promise<void> {
  change({ n: text });
  const turn = numberTurn();
  placeTurn();
  if (!text.trim()) {
    factsBusy.value = false;
    facts.value = undefined;
    mark.value = undefined;
    factsError.value = undefined;
    return;
  }
  factsBusy.value = true;
  const plain = /^\d{1,12}$/.test(text); // its place need not wait
  if (plain) void locate(text, move);
  else mark.value = undefined;
  try {
    const found = await counted(() => get<NumberFacts>("/api/lattice/number", { n: text }, turn));
    facts.value = found;
    factsError.value = undefined;
    if (found.n.length < 60) change({ n: found.n });
    factsBusy.value = false;
    if (!plain && found.shown) void locate(found.n, move);
  } catch (error) {
    if (isAbort(error)) return;
    factsBusy.value = false;
    factsError.value = error instanceof ApiError ? error.message : String(error);
    facts.value = undefined;
  }
}

/** Find the selected number on the open curve. */
export async function locate(text: string, move: boolean): Promise<void> {
  const s = settings.peek();
  const turn = placeTurn();
  const before = moves();
  if (s.curve === "space" || s.curve === "folded-clock") {
    mark.value = undefined;
    return;
  }
  const n = /^\d{1,13}$/.test(text) ? Number(text) : undefined;
  const near = n !== undefined && n <= 1e12 && n >= s.start ? placeOf(s, n) : undefined;
  try {
    const found = near
      ? { x: near[0], y: near[1], pitch: 1 }
      : await counted(() =>
          get<{ x: number; y: number; pitch: number | null }>(
            "/api/lattice/place",
            { ...query.peek(), n: text },
            turn,
          ),
        );
    mark.value = found;
    if (move && moves() === before) {
      // so near that its neighbours can be told from it
      const scale = Math.min(view.peek().scale, (found.pitch ?? Infinity) / 14);
      glideTo({ x: found.x, y: found.y, scale }, reducedMotion.peek());
    }
  } catch (error) {
    if (isAbort(error)) return;
    mark.value = undefined;
    if (move) tell(error);
  }
}

/** Draw the overlay that the settings name, or none. */
export async function drawLine(): Promise<void> {
  const s = settings.peek();
  const turn = lineTurn();
  const parts = s.line.split(" ").map(Number);
  if (parts.length !== 3 || s.curve === "space" || s.curve === "folded-clock") {
    line.value = undefined;
    return;
  }
  const [a, b, c] = parts as [number, number, number];
  try {
    const asked = { ...query.peek(), a, b, c, t: s.t, terms: s.terms };
    line.value = await counted(() => get<Line>("/api/lattice/quadratic", asked, turn));
  } catch (error) {
    if (!isAbort(error)) line.value = undefined;
    tell(error);
  }
}

/** The quadratic of the diagonal of Ulam's spiral through a number, as the overlay. */
export async function pickDiagonal(n: string, slope: 1 | -1): Promise<void> {
  try {
    const start = settings.peek().start;
    const found = await counted(() =>
      get<{ a: number; b: number; c: number; at: number }>("/api/lattice/diagonal", { n, slope, start }),
    );
    const terms = settings.peek().terms;
    const from = Math.max(-Math.floor(terms / 2), -found.at - Math.floor(terms / 2));
    change({ line: `${found.a} ${found.b} ${found.c}`, t: -found.at > terms / 2 ? from : 0 });
  } catch (error) {
    tell(error);
  }
}

export function widthToScale(width: number): number {
  return width / paneSize.peek().width;
}

export function restoreView(s: Settings): void {
  placeView({ x: s.x, y: s.y, scale: widthToScale(s.w) });
}
