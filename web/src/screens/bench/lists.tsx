/** The list at the left: measurements and their tables, studies, or notes; the arrow keys move in it. */
import { signal } from "@preact/signals";
import { Button, Segmented, TextField } from "../../controls";
import { moveByArrows } from "../../controls/moving";
import { go } from "../../state/route";
import { ago } from "../train/words";
import type { NoteRow, StudyRow } from "./api";
import { day, short } from "./figures";
import { drafts } from "./saving";
import {
  broken,
  commands,
  jobs,
  living,
  lookAll,
  newestTables,
  notes,
  problem,
  studies,
  tables,
} from "./state";

export const PARTS = [
  { value: "measure", label: "Measure" },
  { value: "studies", label: "Studies" },
  { value: "notes", label: "Notes" },
];

const filter = signal("");

interface ListsProps {
  part: string;
  params: Readonly<Record<string, string>>;
  onPart: (part: string) => void;
  onNew: () => void;
}

export function Lists({ part, params, onPart, onNew }: ListsProps) {
  return (
    <aside class="lists" aria-label="Bench and research">
      <div class="lists-head">
        <Segmented
          control="bench.part"
          label="What to do"
          quiet
          value={part}
          options={PARTS}
          onChange={onPart}
        />
      </div>
      {part !== "measure" && (
        <div class="lists-tools">
          <TextField
            control="bench.filter"
            label="Filter the list"
            quiet
            live
            placeholder="Filter"
            value={filter.value}
            onChange={(v) => {
              filter.value = v;
            }}
          />
          <Button control="bench.new" onClick={onNew}>
            {part === "studies" ? "New study" : "New note"}
          </Button>
        </div>
      )}
      {problem.value !== undefined && (
        <div class="lists-note">
          <p>{problem.value}</p>
          <Button control="bench.retry" onClick={lookAll}>
            Try again
          </Button>
        </div>
      )}
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the keys only move between its buttons */}
      <div class="lists-body" onKeyDown={(e) => moveByArrows(e, ".item")}>
        {part === "measure" && <MeasureList params={params} />}
        {part === "studies" && <StudyList params={params} />}
        {part === "notes" && <NoteList params={params} />}
      </div>
    </aside>
  );
}

function MeasureList({ params }: { params: Readonly<Record<string, string>> }) {
  const found = newestTables(tables.value ?? []);
  const running = jobs.value.benches.find(living);
  return (
    <>
      <h2 class="lists-title">Measure</h2>
      <ul>
        {commands.value?.map((c) => (
          <li key={c.name}>
            <button
              type="button"
              class="item"
              data-control="bench.command"
              aria-current={params.bench === c.name ? "true" : undefined}
              onClick={() => go("bench", { part: "measure", bench: c.name })}
            >
              <span class="item-name">
                {running?.what === c.name && <span class={`dot dot-${running.state}`} aria-hidden="true" />}
                {c.name}
                {running?.what === c.name && <span class="visually-hidden">, running</span>}
              </span>
              <span class="item-about">{c.about.replaceAll("`", "")}</span>
            </button>
          </li>
        ))}
      </ul>
      <h2 class="lists-title">Results</h2>
      {tables.value && found.length === 0 && (
        <p class="lists-note">
          None in this workspace yet. Choose a measurement above; <b>machine</b> takes seconds.
        </p>
      )}
      <ul>
        {found.map(({ newest: one, times }) => (
          <li key={one.name}>
            <button
              type="button"
              class="item"
              data-control="bench.table"
              aria-current={params.table === one.name ? "true" : undefined}
              title={one.title}
              onClick={() => go("bench", { part: "measure", table: one.name })}
            >
              <span class="item-name">
                {one.name}
                {times > 1 && <span class="tag">{times}×</span>}
              </span>
              <span class="item-facts mono">
                {day(one.date).replace(/, .*/, "")} · {short(one.commit)}
              </span>
            </button>
          </li>
        ))}
      </ul>
      {broken.value.map((b) => (
        <p key={b.file} class="lists-note warm">
          {b.file}: {b.why}
        </p>
      ))}
    </>
  );
}

function fits(words: string): boolean {
  const hay = words.toLowerCase();
  return filter.value
    .toLowerCase()
    .split(/\s+/)
    .every((w) => hay.includes(w));
}

function StudyList({ params }: { params: Readonly<Record<string, string>> }) {
  const found = (studies.value ?? []).filter((s) => fits(`${s.title} ${s.file ?? ""} ${s.folder ?? ""}`));
  return (
    <ul>
      {studies.value && found.length === 0 && studies.value.length > 0 && (
        <li class="lists-note">No study has that in its name.</li>
      )}
      {studies.value?.length === 0 && <li class="lists-note">No study in this workspace yet.</li>}
      {found.map((s) => (
        <li key={`${s.file} ${s.folder}`}>
          <StudyItem study={s} chosen={isOpen(s, params)} />
        </li>
      ))}
    </ul>
  );
}

function isOpen(s: StudyRow, params: Readonly<Record<string, string>>): boolean {
  return params.folder !== undefined
    ? params.folder === s.folder
    : params.study === s.file && s.file !== null;
}

/** The address of a study. */
export function studyParams(s: StudyRow): Record<string, string> {
  return {
    part: "studies",
    ...(s.file ? { study: s.file } : {}),
    ...(s.folder ? { folder: s.folder } : {}),
  };
}

function StudyItem({ study: s, chosen }: { study: StudyRow; chosen: boolean }) {
  const job = jobs.value.studies.findLast((j) => j.run === s.folder);
  const live = living(job);
  const total = s.cells * s.seeds;
  const done = live ? (job!.progress?.done ?? s.done) : s.done;
  return (
    <button
      type="button"
      class="item"
      data-control="bench.study"
      aria-current={chosen ? "true" : undefined}
      title={s.broken ?? s.folder ?? s.file ?? undefined}
      onClick={() => go("bench", studyParams(s))}
    >
      <span class="item-name">
        <span
          class={`dot dot-${live ? job!.state : total > 0 && done >= total ? "done" : "stopped"}`}
          aria-hidden="true"
        />
        {s.title}
      </span>
      <span class="item-facts mono">
        {s.broken ? "cannot be read" : `${done} / ${total} runs`} · {s.folder ?? s.file}
      </span>
      {live && (
        <span class="run-bar" aria-hidden="true">
          <span style={{ width: `${(100 * done) / Math.max(1, total)}%` }} />
        </span>
      )}
    </button>
  );
}

/** Folder by folder, the workspace's own first. */
export function folders(list: readonly NoteRow[]): [string, NoteRow[]][] {
  const found = new Map<string, NoteRow[]>();
  for (const note of list) {
    const cut = note.name.lastIndexOf("/");
    const folder = cut < 0 ? "" : note.name.slice(0, cut);
    found.set(folder, [...(found.get(folder) ?? []), note]);
  }
  return [...found].sort(([a], [b]) => a.localeCompare(b));
}

function NoteList({ params }: { params: Readonly<Record<string, string>> }) {
  const found = (notes.value ?? []).filter((n) => fits(`${n.name} ${n.title ?? ""}`));
  return (
    <>
      {notes.value?.length === 0 && <p class="lists-note">No Markdown in this workspace yet.</p>}
      {notes.value && notes.value.length > 0 && found.length === 0 && (
        <p class="lists-note">No note has that in its name or title.</p>
      )}
      {folders(found).map(([folder, list]) => (
        <section key={folder}>
          {folder && <h2 class="lists-title lists-folder">{folder}</h2>}
          <ul>
            {list.map((n) => (
              <li key={n.name}>
                <button
                  type="button"
                  class="item"
                  data-control="bench.note"
                  aria-current={params.note === n.name ? "true" : undefined}
                  title={n.name}
                  onClick={() => go("bench", { part: "notes", note: n.name })}
                >
                  <span class="item-name">
                    {n.title ?? n.name.replace(/^.*\//, "")}
                    {drafts.value[n.name] && <span class="tag">not saved</span>}
                  </span>
                  <span class="item-facts mono">
                    {n.name.replace(/^.*\//, "")} · {ago(n.changed)}
                  </span>
                </button>
              </li>
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}
