/** Lists of this screen and the jobs, kept up to date by the topic `bench`. */
import { computed, type Signal, signal } from "@preact/signals";
import { tell } from "../../api/client";
import { watchTopic } from "../../api/socket";
import { api, type Command, type Job, type Jobs, type NoteRow, type StudyRow, type Summary } from "./api";
import { openDrafts } from "./saving";

export const commands = signal<readonly Command[] | undefined>(undefined);
export const waited = signal(0);
export const tables = signal<readonly Summary[] | undefined>(undefined);
export const broken = signal<readonly { file: string; why: string }[]>([]);
export const studies = signal<readonly StudyRow[] | undefined>(undefined);
export const notes = signal<readonly NoteRow[] | undefined>(undefined);
export const jobs = signal<Jobs>({ benches: [], studies: [] });
const problems = signal<Readonly<Record<string, string>>>({});
/** Why a first look failed, where one did. */
export const problem = computed(() => Object.values(problems.value)[0]);
/** Counts what the files of results may have changed with. */
export const news = signal(0);
/** Seconds since 1970, ticking while something runs. */
export const clock = signal(Date.now() / 1000);

export const living = (job: Job | undefined): boolean => job !== undefined && job.state !== "ended";

/** The newest job of a measurement, or of a study's folder. */
export function newest(list: readonly Job[], fits: (job: Job) => boolean): Job | undefined {
  return list.findLast(fits);
}

async function fetched<T>(name: string, of: Signal<T | undefined>, ask: () => Promise<T>): Promise<void> {
  try {
    of.value = await ask();
    const { [name]: _, ...others } = problems.peek();
    problems.value = others;
  } catch (error) {
    if (of.peek() !== undefined) tell(error);
    else
      problems.value = { ...problems.peek(), [name]: error instanceof Error ? error.message : String(error) };
  }
}

export const look = {
  commands: () =>
    fetched("commands", commands, async () => {
      const found = await api.commands();
      waited.value = found.waited;
      return found.commands;
    }),
  tables: () =>
    fetched("tables", tables, async () => {
      const found = await api.results();
      broken.value = found.broken;
      return found.tables;
    }),
  studies: () => fetched("studies", studies, async () => (await api.studies()).studies),
  notes: () =>
    fetched("notes", notes, async () => {
      const found = await api.notes();
      openDrafts(found.workspace);
      return found.notes;
    }),
};

export function lookAll(): void {
  for (const one of Object.values(look)) void one();
}

/** What, when it changes, means that files have changed: a job came or ended, a run of a study is done. */
function mark(now: Jobs): string {
  return [...now.benches, ...now.studies].map((j) => `${j.id}${j.state}${j.progress?.done ?? ""}`).join(" ");
}

let watching = false;

/** Begin once. */
export function follow(): void {
  lookAll();
  if (watching) return;
  watching = true;
  let before = "";
  const take = (value: Jobs) => {
    jobs.value = value;
    const now = mark(value);
    if (now === before) return;
    const first = before === "";
    before = now;
    news.value += 1;
    if (first) return;
    void look.tables();
    void look.studies();
    void look.commands();
  };
  watchTopic("bench", (value) => take(value as Jobs));
  setInterval(() => {
    const now = jobs.peek();
    if (!document.hidden && [...now.benches, ...now.studies].some(living)) clock.value = Date.now() / 1000;
  }, 1000);
}

/** The command whose tables begin with its name; those of `numbers` have names of their own. */
export function commandOf(table: string): string | undefined {
  const names = commands.value?.map((c) => c.name) ?? [];
  const own = names
    .filter((n) => table === n || table.startsWith(`${n}-`))
    .sort((a, b) => b.length - a.length)[0];
  if (own) return own;
  return ["primes", "lattice-maps"].includes(table) && names.includes("numbers") ? "numbers" : undefined;
}

/** The newest of each table, by the name of the table. */
export function newestTables(all: readonly Summary[]): { newest: Summary; times: number }[] {
  const found = new Map<string, { newest: Summary; times: number }>();
  for (const one of all) {
    const known = found.get(one.name);
    if (known) known.times += 1;
    else found.set(one.name, { newest: one, times: 1 });
  }
  return [...found.values()].sort((a, b) => a.newest.name.localeCompare(b.newest.name));
}
