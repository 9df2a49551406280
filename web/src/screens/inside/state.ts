/** What is looked at: a checkpoint, a text, and what of them. It stays while other screens are looked at. */
import { batch, computed, signal } from "@preact/signals";
import { isAbort, words } from "../../api/client";
import { listSources, type Source } from "../sources";
import { api, type Named, type Place, type Structure, type Trace } from "./api";
import { type Blocks, blocksOf } from "./blocks";

export const VIEWS = ["blocks", "tensors", "attention", "lens", "embedding", "certificate"] as const;
export type View = (typeof VIEWS)[number];

export const sources = signal<readonly Source[] | undefined>(undefined);
export const sourcesError = signal<string | undefined>(undefined);
export const place = signal<Place>({ run: "", checkpoint: "latest" });
/** Empty: the beginning of the run's own text. */
export const text = signal("");
export const view = signal<View>("blocks");
export const log = signal(false);

export const block = signal("embedding");
export const tensor = signal("");
export const head = signal({ layer: 0, head: 0 });
/** The cell of the attention map and of the lens: its column or query, and its key or number of layers. */
export const cell = signal({ query: -1, key: -1 });
export const spot = signal({ at: -1, place: -1 });
export const token = signal("");
export const colour = signal("class");
/** The cloud's three directions are drawn equally wide, instead of to one scale. */
export const equal = signal(true);
export const certificate = signal("");

export const structure = signal<Structure | undefined>(undefined);
export const structureError = signal<string | undefined>(undefined);
export const blocks = computed<Blocks | undefined>(() => structure.value && blocksOf(structure.value));
export const trace = signal<Trace | undefined>(undefined);
export const traceError = signal<string | undefined>(undefined);
export const tracing = signal(false);

/** A key that changes with the checkpoint. */
export const placeKey = computed(() => JSON.stringify(place.value));
/** A key that changes with the pass: what is calculated from one is void with the next. */
export const traceKey = computed(() => (trace.value ? JSON.stringify([place.value, text.value]) : ""));

export async function load(): Promise<void> {
  try {
    const found = await listSources();
    const now = place.peek();
    const source = found.find((s) => s.run === now.run);
    batch(() => {
      sources.value = found;
      sourcesError.value = undefined;
      if (!source && found[0]) choose(found[0].run, "latest");
      else if (source && !["latest", "best", ...source.checkpoints].includes(now.checkpoint))
        choose(source.run, "latest");
    });
  } catch (error) {
    sourcesError.value = words(error);
  }
}

export function choose(run: string, checkpoint: string): void {
  const now = place.peek();
  if (now.run === run && now.checkpoint === checkpoint) return;
  batch(() => {
    if (now.run !== run && now.run !== "") {
      text.value = "";
      token.value = "";
      certificate.value = "";
    }
    place.value = { run, checkpoint };
    structure.value = undefined;
    structureError.value = undefined;
    trace.value = undefined;
    traceError.value = undefined;
  });
}

let structures = new AbortController();

export async function loadStructure(): Promise<void> {
  structures.abort();
  structures = new AbortController();
  const of = place.peek();
  if (!of.run) return;
  try {
    structure.value = await api.model(of, structures.signal);
    structureError.value = undefined;
  } catch (error) {
    if (!isAbort(error)) structureError.value = words(error);
  }
}

let traces = new AbortController();

export async function loadTrace(): Promise<void> {
  traces.abort();
  traces = new AbortController();
  const mine = traces;
  const of = place.peek();
  if (!of.run) return;
  tracing.value = true;
  try {
    const found = await api.trace(of, text.peek(), mine.signal);
    batch(() => {
      trace.value = found;
      traceError.value = undefined;
    });
  } catch (error) {
    if (!isAbort(error)) {
      batch(() => {
        trace.value = undefined;
        traceError.value = words(error);
      });
    }
  } finally {
    if (traces === mine) tracing.value = false;
  }
}

const measured = new Map<string, Promise<Named>>();

/** The statistics of a tensor; asked for once. */
export function measure(of: Place, name: string): Promise<Named> {
  const key = JSON.stringify([of, structure.peek()?.checkpoint, name]);
  const known = measured.get(key);
  if (known) return known;
  const found = api.tensor(of, name, new AbortController().signal);
  measured.set(key, found);
  found.catch(() => measured.delete(key));
  if (measured.size > 500) measured.delete(measured.keys().next().value!);
  return found;
}

export function remember(of: Place, found: Named): void {
  measured.set(JSON.stringify([of, structure.peek()?.checkpoint, found.name]), Promise.resolve(found));
}

/** The checkpoint by its own name, once that is known: so that all that is shown is of one. */
export const fixed = computed<Place>(() => ({
  run: place.value.run,
  checkpoint: structure.value?.checkpoint ?? place.value.checkpoint,
}));
