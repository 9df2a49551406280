/** The runs that have checkpoints, and how a run and a checkpoint of it are chosen: the same on every screen that looks
 * at a checkpoint. */
import { get } from "../api/client";
import type { Option } from "../controls";

export interface Source {
  run: string;
  preset: string;
  parameters: number | null;
  best_loss: number | null;
  checkpoints: string[];
  latest?: string;
  best?: string;
}

export async function listSources(): Promise<Source[]> {
  return (await get<{ runs: Source[] }>("/api/generate/checkpoints")).runs;
}

export function runOptions(list: readonly Source[]): Option[] {
  return list.map((s) => ({ value: s.run, label: s.run.replace(/^runs\//, "") }));
}

/** The names first, then every checkpoint, the newest on top. */
export function checkpointOptions(source: Source | undefined): Option[] {
  const step = (name: string) => `step ${Number(name.replace("step-", ""))}`;
  return [
    { value: "latest", label: `latest${source?.latest ? ` (${step(source.latest)})` : ""}` },
    ...(source?.best ? [{ value: "best", label: `best (${step(source.best)})` }] : []),
    ...[...(source?.checkpoints ?? [])]
      .reverse()
      .map((name) => ({ value: name, label: step(name), group: "Checkpoints" })),
  ];
}
