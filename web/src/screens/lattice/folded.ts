/** The folded clock: rings of 12, 60, 60 and 100 places, their lower half folded up and then their left half folded
 * over, until one quadrant holds all. Places come from the server; here they are only turned about the two creases. */
import { signal } from "@preact/signals";
import { get, tell } from "../../api/client";
import { theme } from "../../state/theme";
import { counted } from "./busy";
import { pictureQuery, type Settings } from "./settings";

export interface Folded {
  n: number[];
  radius: number[];
  angle: number[];
  folded: number[];
  quadrant: number[];
  colour: string[];
  bright: boolean[];
}

export const folded = signal<Folded | undefined>(undefined);
let key = "";
let controller = new AbortController();

export async function loadFolded(s: Settings): Promise<void> {
  const count = Math.min(s.count, 20000);
  const query = { ...pictureQuery(s, theme.peek(), s.null !== "off"), start: s.start, count };
  const next = JSON.stringify(query);
  if (next === key) return;
  key = next;
  controller.abort();
  controller = new AbortController();
  try {
    const asked = { ...query, curve: "ulam" };
    folded.value = await counted(() => get<Folded>("/api/lattice/folded", asked, controller.signal));
  } catch (error) {
    if (key === next) key = ""; // to be asked again
    tell(error);
  }
}

/** Where point i lies when the fold is at t (0 flat, 1 the lower half up, 2 all in one quadrant). */
export function foldedPlace(f: Folded, i: number, t: number): [x: number, y: number, lift: number] {
  const first = Math.min(1, Math.max(0, t)) * Math.PI;
  const second = Math.min(1, Math.max(0, t - 1)) * Math.PI;
  const quadrant = f.quadrant[i]!;
  // the four layers fall on each other; a part of the rings' distance keeps them apart
  const r = f.radius[i]! + 0.2 * quadrant * Math.min(1, t / 2);
  const a = f.angle[i]!;
  let x = r * Math.sin(a);
  let y = r * Math.cos(a);
  let lift = 0;
  if (y < 0 || (quadrant === 1 && y === 0)) {
    lift = -y * Math.sin(first);
    y *= Math.cos(first);
  }
  if (x < 0) {
    lift = Math.max(lift, -x * Math.sin(second));
    x *= Math.cos(second);
  }
  return [x, y, lift];
}
