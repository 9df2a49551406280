/** Bench & research: real measurements with their history, studies over seeds, and the workspace's notes. */
import { useEffect, useState } from "preact/hooks";
import { Button, Empty } from "../../controls";
import { useCommands } from "../../state/commands";
import { go, route } from "../../state/route";
import { Lists, PARTS, studyParams } from "./lists";
import { Making } from "./making";
import { Measure } from "./measure";
import { NoteView } from "./notes";
import { Result } from "./result";
import { commands, follow, jobs, living, notes, studies, tables } from "./state";
import { NoStudy, StudyView } from "./studies";

export default function Bench() {
  useEffect(follow, []);
  const [making, setMaking] = useState<"note" | "study">();
  const params = route.value.params;
  const part = PARTS.some((p) => p.value === params.part) ? params.part! : "measure";
  const list = params.list !== undefined;
  const wide = matchMedia("(min-width: 721px)").matches;
  const running = (jobs.value.benches.find(living) ?? jobs.value.benches.at(-1))?.what;

  // what is open when nothing is asked for: on a wide page the first of the list
  const bench =
    params.bench ??
    (part === "measure" && !params.table && wide && !list
      ? (running ?? commands.value?.[0]?.name)
      : undefined);
  const first = wide && !list ? studies.value?.[0] : undefined;
  const study = params.study ?? (params.folder ? undefined : (first?.file ?? undefined));
  const folder = params.folder ?? (params.study ? undefined : (first?.folder ?? undefined));
  const note =
    params.note ??
    (wide && !list
      ? (notes.value?.find((n) => n.name === "README.md") ?? notes.value?.[0])?.name
      : undefined);
  const open =
    part === "measure" ? params.table || bench : part === "studies" ? study || folder : (note as unknown);

  // a study's file is written where notes are, and belongs to the studies
  const file = part === "notes" && typeof note === "string" && note.endsWith(".toml") ? note : undefined;

  const to = (name: string) => go("bench", { part: name });
  const create = () => setMaking(part === "studies" ? "study" : "note");
  useCommands(
    "bench",
    () => [
      ...PARTS.map((p) => ({
        id: `bench.${p.value}`,
        group: "Bench",
        title: p.label,
        run: () => to(p.value),
      })),
      { id: "bench.new-note", group: "Bench", title: "New note", run: () => setMaking("note") },
      { id: "bench.new-study", group: "Bench", title: "New study", run: () => setMaking("study") },
      ...(part === "notes" && typeof note === "string" && params.edit === undefined
        ? [
            {
              id: "bench.edit",
              group: "Bench",
              title: "Edit this note",
              keys: "e",
              run: () => go("bench", { part: "notes", note, edit: "1" }),
            },
          ]
        : []),
      ...(commands.value ?? []).map((c) => ({
        id: `bench.measure.${c.name}`,
        group: "Measure",
        title: c.name,
        run: () => go("bench", { part: "measure", bench: c.name }),
      })),
      ...[...new Set((tables.value ?? []).map((t) => t.name))].map((name) => ({
        id: `bench.table.${name}`,
        group: "Results",
        title: name,
        run: () => go("bench", { part: "measure", table: name }),
      })),
      ...(studies.value ?? []).map((s) => ({
        id: `bench.study.${s.file}.${s.folder}`,
        group: "Study",
        title: s.title,
        run: () => go("bench", studyParams(s)),
      })),
      ...(notes.value ?? []).slice(0, 200).map((n) => ({
        id: `bench.note.${n.name}`,
        group: "Note",
        title: n.name,
        run: () => go("bench", { part: "notes", note: n.name }),
      })),
    ],
    [part, note, params.edit, commands.value, tables.value, studies.value, notes.value],
  );
  const on = params.on === undefined ? undefined : params.on.split(",").filter(Boolean).map(Number);
  return (
    <div class={`bench ${open ? "bench-open" : "bench-list"}`}>
      <Lists
        part={file ? "studies" : part}
        params={{
          ...params,
          ...(bench ? { bench } : {}),
          ...(study && !file ? { study } : {}),
          ...(folder && !file ? { folder } : {}),
          ...(file ? { study: file } : {}),
          ...(note ? { note } : {}),
        }}
        onPart={to}
        onNew={create}
      />
      <div class="bench-main">
        {part === "measure" &&
          (params.table ? (
            <Result
              key={params.table}
              name={params.table}
              file={params.file}
              row={params.row}
              figure={params.figure}
            />
          ) : bench ? (
            <Measure key={bench} name={bench} />
          ) : null)}
        {part === "studies" &&
          (study || folder ? (
            <StudyView key={`${study} ${folder}`} file={study} folder={folder} on={on} />
          ) : studies.value?.length === 0 ? (
            <NoStudy onNew={() => setMaking("study")} />
          ) : null)}
        {part === "notes" &&
          (note ? (
            <NoteView key={note} name={note} editing={params.edit !== undefined} heading={params.at} />
          ) : notes.value?.length === 0 ? (
            <Empty title="No note yet">
              <p>
                What you expected, what you saw, what to try next: Markdown files of the workspace, yours to
                keep.
              </p>
              <p>
                <Button control="bench.first-note" kind="main" onClick={() => setMaking("note")}>
                  Write the first note
                </Button>
              </p>
            </Empty>
          ) : null)}
      </div>
      <Making what={making} onClose={() => setMaking(undefined)} />
    </div>
  );
}
