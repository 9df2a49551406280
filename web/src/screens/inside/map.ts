/** Drawing an attention map: one square a pair of query (row) and key (column), shaded by its weight. */
import { token } from "../../state/theme";
import { allowed, type Rgb, ramp } from "./figures";

export function rgb(name: string): Rgb {
  const hex = token(name).replace("#", "");
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)) as unknown as Rgb;
}

const mix = (a: Rgb, b: Rgb, t: number): Rgb => ramp([a, b], t);

/** From nothing to all: dark to bright on a dark page, bright to dark on a light one. */
export function stops(dark: boolean): Rgb[] {
  const ground = rgb("ground");
  return dark
    ? [mix(ground, rgb("raised"), 0.8), mix(ground, rgb("plot-5"), 0.55), rgb("warm"), rgb("accent")]
    : [mix(ground, rgb("raised"), 0.3), mix(ground, rgb("plot-1"), 0.5), rgb("plot-3"), rgb("text")];
}

export interface Drawn {
  weights: Float32Array;
  documents: readonly number[];
  masked: boolean;
  scale: Scale;
  dark: boolean;
}

/** Shades by the weight, by its root (small ones can be told apart), or by the root of its part of the row's largest. */
export type Scale = "root" | "linear" | "row";

export function shade(weight: number, largest: number, scale: Scale): number {
  if (scale === "linear") return weight;
  return Math.sqrt(scale === "row" ? weight / (largest || 1) : weight);
}

/** The map as pixels, one a cell: forbidden keys checkered, and in another shade where the document mask forbids. */
export function pixels(of: Drawn): ImageData {
  const t = of.documents.length;
  const found = new ImageData(t, t);
  const shades = Array.from({ length: 256 }, (_, i) => ramp(stops(of.dark), i / 255));
  const ground = rgb("ground");
  const future = [ground, mix(ground, rgb("line"), 0.45)];
  const other = [mix(ground, rgb("cool"), 0.1), mix(ground, rgb("cool"), 0.24)];
  for (let q = 0; q < t; q++) {
    const largest = of.scale === "row" ? Math.max(...of.weights.subarray(q * t, q * t + t)) : 1;
    for (let k = 0; k < t; k++) {
      const may = allowed(q, k, of.documents, of.masked);
      const w = of.weights[q * t + k]!;
      const colour =
        may === "yes"
          ? shades[Math.round(255 * shade(w, largest, of.scale))]!
          : (may === "future" ? future : other)[(q + k) % 2]!;
      found.data.set([...colour, 255], 4 * (q * t + k));
    }
  }
  return found;
}

/** A small picture (bytes of √weight, base64) as pixels. */
export function small(picture: string, size: number, dark: boolean): ImageData {
  const found = new ImageData(size, size);
  const shades = Array.from({ length: 256 }, (_, i) => ramp(stops(dark), i / 255));
  const ground = rgb("ground");
  const bytes = atob(picture);
  for (let i = 0; i < size * size; i++) {
    const future = i % size > Math.floor(i / size);
    found.data.set([...(future ? ground : shades[bytes.charCodeAt(i)]!), 255], 4 * i);
  }
  return found;
}

export function paint(canvas: HTMLCanvasElement, image: ImageData): void {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}
