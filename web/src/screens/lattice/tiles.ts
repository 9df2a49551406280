/** The tiles of one picture: asked for from the middle outwards, given up when they leave the view, kept while they are
 * likely to be seen again. Until a tile is there its ancestors and children stand for it. */
import { getBytes, isAbort, type Query } from "../../api/client";

export const SIZE = 256;
const AT_ONCE = 4; // of all layers: a browser has six connections to a host; two are left for everything else
const KEPT = 500; // tiles of 256 kB

export interface Camera {
  /** The centre, in world units. */
  x: number;
  y: number;
  /** World units a device pixel. */
  scale: number;
}

interface Wanted {
  key: string;
  level: number;
  i: number;
  j: number;
  far: number;
}

const layers = new Set<TileLayer>();
let active = 0;

export class TileLayer {
  private readonly kept = new Map<string, ImageBitmap>();
  private readonly pending = new Map<string, AbortController>();
  private readonly failed = new Set<string>();
  private queue: Wanted[] = [];
  private base: Query = {};
  private key = "";
  private before = "";
  private geometry = "";
  private finest = -44;

  constructor(
    private readonly changed: () => void,
    private readonly say: (error: unknown) => void,
  ) {
    layers.add(this);
  }

  /** What to show. geometry: where numbers lie; while it stays, the old colours stand in for the new ones. */
  show(query: Query, geometry: string, grid: boolean): void {
    const key = JSON.stringify(query);
    if (key === this.key) return;
    this.before = geometry === this.geometry ? this.key : "";
    this.key = key;
    this.base = query;
    this.geometry = geometry;
    this.finest = grid ? 0 : -44;
    this.failed.clear();
    this.cancel(() => true);
    this.changed();
  }

  get waiting(): number {
    return this.pending.size + this.queue.length;
  }

  draw(g: CanvasRenderingContext2D, camera: Camera, width: number, height: number): void {
    const level = Math.min(
      40,
      Math.max(this.finest, Math.floor(Math.log2(camera.scale) + (this.finest < 0 ? 0.25 : 1e-9))),
    );
    const pixel = 2 ** level;
    const side = SIZE * pixel;
    const left = camera.x - (width / 2) * camera.scale;
    const top = camera.y + (height / 2) * camera.scale;
    const i0 = Math.floor(left / side);
    const i1 = Math.floor((left + width * camera.scale) / side);
    const j0 = Math.floor((top - height * camera.scale) / side);
    const j1 = Math.floor(top / side);
    const zoom = pixel / camera.scale;
    g.imageSmoothingEnabled = zoom < 3;
    g.imageSmoothingQuality = "low";
    const wanted: Wanted[] = [];
    for (let j = j0; j <= j1; j++)
      for (let i = i0; i <= i1; i++) {
        const x0 = Math.round((i * side - left) / camera.scale);
        const x1 = Math.round(((i + 1) * side - left) / camera.scale);
        const y0 = Math.round((top - (j + 1) * side) / camera.scale);
        const y1 = Math.round((top - j * side) / camera.scale);
        const key = `${this.key}|${level}|${i}|${j}`;
        const tile = this.take(key);
        if (tile) {
          g.drawImage(tile, x0, y0, x1 - x0, y1 - y0);
          continue;
        }
        this.standIn(g, level, i, j, x0, y0, x1 - x0, y1 - y0);
        if (!this.failed.has(key)) {
          const far = Math.hypot((x0 + x1 - width) / 2, (y0 + y1 - height) / 2);
          wanted.push({ key, level, i, j, far });
        }
      }
    this.want(wanted);
  }

  dispose(): void {
    layers.delete(this);
    this.cancel(() => true);
    for (const tile of this.kept.values()) tile.close();
    this.kept.clear();
  }

  private take(key: string): ImageBitmap | undefined {
    const tile = this.kept.get(key);
    if (tile) {
      this.kept.delete(key); // the map's order is that of use
      this.kept.set(key, tile);
    }
    return tile;
  }

  private standIn(
    g: CanvasRenderingContext2D,
    level: number,
    i: number,
    j: number,
    x: number,
    y: number,
    w: number,
    h: number,
  ): void {
    for (const key of [this.key, this.before]) {
      if (!key) continue;
      const same = key === this.key ? undefined : this.kept.get(`${key}|${level}|${i}|${j}`);
      if (same) {
        g.drawImage(same, x, y, w, h);
        return;
      }
      for (let up = 1; up <= 8; up++) {
        const f = 2 ** up;
        const a = Math.floor(i / f);
        const b = Math.floor(j / f);
        const parent = this.kept.get(`${key}|${level + up}|${a}|${b}`);
        if (!parent) continue;
        const s = SIZE / f;
        g.drawImage(parent, (i - a * f) * s, (f - 1 - (j - b * f)) * s, s, s, x, y, w, h);
        return;
      }
      let found = false;
      for (let dj = 0; dj < 2; dj++)
        for (let di = 0; di < 2; di++) {
          const child = this.kept.get(`${key}|${level - 1}|${2 * i + di}|${2 * j + dj}`);
          if (!child) continue;
          found = true;
          g.drawImage(child, x + (di * w) / 2, y + ((1 - dj) * h) / 2, w / 2, h / 2);
        }
      if (found) return;
    }
  }

  private want(wanted: Wanted[]): void {
    const keys = new Set(wanted.map((w) => w.key));
    this.cancel((key) => !keys.has(key));
    this.queue = wanted.filter((w) => !this.pending.has(w.key)).sort((a, b) => a.far - b.far);
    this.next();
  }

  private cancel(which: (key: string) => boolean): void {
    for (const [key, controller] of this.pending)
      if (which(key)) {
        this.pending.delete(key);
        controller.abort();
      }
    this.queue = [];
  }

  private next(): void {
    while (active < AT_ONCE && this.queue.length) void this.load(this.queue.shift()!);
  }

  private async load(w: Wanted): Promise<void> {
    const controller = new AbortController();
    this.pending.set(w.key, controller);
    active++;
    try {
      const query = { ...this.base, level: w.level, i: w.i, j: w.j };
      const bytes = await getBytes("/api/lattice/tile", query, controller.signal);
      const tile = await createImageBitmap(new ImageData(new Uint8ClampedArray(bytes), SIZE, SIZE));
      if (controller.signal.aborted) tile.close();
      else this.keep(w.key, tile);
    } catch (error) {
      if (!isAbort(error)) {
        this.failed.add(w.key);
        this.say(error);
      }
    } finally {
      if (this.pending.get(w.key) === controller) this.pending.delete(w.key);
      active--;
      for (const layer of layers) layer.next();
      this.changed();
    }
  }

  private keep(key: string, tile: ImageBitmap): void {
    this.kept.set(key, tile);
    for (const [old, bitmap] of this.kept) {
      if (this.kept.size <= KEPT) break;
      this.kept.delete(old);
      bitmap.close();
    }
  }
}
