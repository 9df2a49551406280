/** The studio's screens, in the order of the navigation. A screen is a folder with an `index.tsx` whose default export
 * is its component; it is loaded when it is first opened. */
import type { ComponentType } from "preact";

export interface Screen {
  name: string;
  title: string;
  /** One line for the palette and the tooltip. */
  about: string;
  /** It does not always show a heading of its own, so the frame has one. */
  plain?: boolean;
  load: () => Promise<{ default: ComponentType }>;
}

export const screens: readonly Screen[] = [
  {
    name: "lattice",
    title: "Lattice",
    about: "Primes and integers on curves, clocks and lattices",
    plain: true,
    load: () => import("./lattice"),
  },
  {
    name: "calculate",
    title: "Calculate",
    about: "A sheet on exact numbers: proven digits only",
    plain: true,
    load: () => import("./calculate"),
  },
  {
    name: "train",
    title: "Train",
    about: "Data, model, live curves, runs",
    load: () => import("./train"),
  },
  {
    name: "generate",
    title: "Generate",
    about: "Text from a checkpoint, token by token",
    plain: true,
    load: () => import("./generate"),
  },
  {
    name: "inside",
    title: "Inside",
    about: "A checkpoint's tensors, attention and certificate",
    plain: true,
    load: () => import("./inside"),
  },
  {
    name: "bench",
    title: "Bench & research",
    about: "Benchmarks, ablations, notes",
    plain: true,
    load: () => import("./bench"),
  },
];
