/** One study: what it compares, how far it is trained, what the numbers support. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { Button, Empty, type Figure, Figures } from "../../controls";
import { go } from "../../state/route";
import { toast } from "../../state/toasts";
import { count, duration, short } from "../train/words";
import { api, type Job, type Study } from "./api";
import { Sentence } from "./markdown";
import { Back } from "./measure";
import { jobs, living, look, newest, news } from "./state";
import { Learning, Lengths, Live, paired, share } from "./study-parts";

interface StudyProps {
  file: string | undefined;
  folder: string | undefined;
  /** Places of the cells on the chart; the first ones where none is chosen. */
  on: readonly number[] | undefined;
}

/** Where `cllm ablate FILE` writes. */
export function placeOf(file: string): string {
  return `studies/${file.replace(/^.*\//, "").replace(/\.[^.]*$/, "")}`;
}

export function StudyView({ file, folder, on }: StudyProps) {
  const [study, setStudy] = useState<Study>();
  const [wrong, setWrong] = useState<string>();
  const [busy, setBusy] = useState(false);
  const own = file ? placeOf(file) : undefined;
  const job = newest(jobs.value.studies, (j) => j.run === folder || (folder === undefined && j.run === own));
  const live = living(job);
  useEffect(() => {
    const stop = new AbortController();
    api
      .study(folder, file, stop.signal)
      .then((found) => {
        setStudy(found);
        setWrong(undefined);
      })
      .catch((error: unknown) => {
        if (!isAbort(error)) setWrong(error instanceof Error ? error.message : String(error));
      });
    return () => stop.abort();
  }, [folder, file, news.value]);
  useEffect(() => setStudy(undefined), [folder, file]);

  const begin = async () => {
    if (!file) return;
    setBusy(true);
    try {
      const made = await api.ablate(file);
      await look.studies();
      go("bench", { part: "studies", study: file, folder: made.run });
    } catch (error) {
      tell(error);
    } finally {
      setBusy(false);
    }
  };
  const act = async (what: "stop" | "pause" | "continue") => {
    if (!job) return;
    try {
      await api.act("ablate", job.run, what);
      if (what === "stop" && job.state !== "stopping")
        toast("It finishes its step and saves; what is trained stays.");
    } catch (error) {
      tell(error);
    }
  };
  if (!study)
    return (
      <div class="page" aria-busy={wrong === undefined}>
        {wrong !== undefined && (
          <>
            <Back />
            <h1>{file ?? folder}</h1>
            <pre class="job-error">{wrong}</pre>
            {file && <EditFile file={file} />}
          </>
        )}
      </div>
    );
  const total = study.cells.length * study.seeds.length;
  const done = Math.max(study.done, live ? (job?.progress?.done ?? 0) : 0);
  const here = folder === undefined || folder === own;
  const canTrain = file !== undefined && !live && !study.mixed && (done < total || !here);
  return (
    <div class="page">
      <header class="page-head">
        <Back />
        <div class="page-title">
          <h1>{study.title}</h1>
          <p class="job-words">
            <span
              class={`dot dot-${live ? job!.state : done === total ? "done" : "stopped"}`}
              aria-hidden="true"
            />
            <b>
              {live
                ? job!.state
                : done === total
                  ? "complete"
                  : done > 0 || job
                    ? "unfinished"
                    : "not trained yet"}
            </b>
            <span class="quiet mono">{folder ?? file}</span>
          </p>
        </div>
        <div class="page-actions">
          {live && job!.state === "running" && (
            <Button
              control="bench.study-pause"
              title="Hold it where it is, in memory"
              onClick={() => void act("pause")}
            >
              Pause
            </Button>
          )}
          {live && job!.state === "paused" && (
            <Button control="bench.study-continue" kind="main" onClick={() => void act("continue")}>
              Continue
            </Button>
          )}
          {live && (
            <Button
              control="bench.study-stop"
              kind={job!.state === "stopping" ? "danger" : "plain"}
              title={
                job!.state === "stopping"
                  ? "End at once"
                  : "Finish the step, save, end; it goes on where it was"
              }
              onClick={() => void act("stop")}
            >
              {job!.state === "stopping" ? "End at once" : "Stop and save"}
            </Button>
          )}
          {canTrain && (
            <Button control="bench.study-train" kind="main" disabled={busy} onClick={() => void begin()}>
              {!here ? "Train it here" : done > 0 || job ? "Go on" : "Train"}
            </Button>
          )}
          {study.report && study.folder && (
            <Button
              control="bench.study-report"
              onClick={() => go("bench", { part: "notes", note: `${study.folder}/report.md` })}
            >
              Report
            </Button>
          )}
          {file && <EditFile file={file} />}
        </div>
      </header>
      {live && (
        <progress class="view-bar" max={total} value={done + share(job!, study)} aria-label="runs done" />
      )}
      {study.mixed && (
        <p class="alert alert-bad" role="alert">
          {study.mixed}
        </p>
      )}
      {job?.state === "ended" && job.error && <pre class="job-error">{job.error}</pre>}
      <Numbers study={study} done={done} total={total} job={live ? job : undefined} />
      {study.conclusion.length > 0 && paired(study) && <Conclusion study={study} whole={done >= total} />}
      {study.done > 0 && study.cells.length > 1 && !paired(study) && (
        <p class="quiet">
          {study.seeds.length > 1
            ? "Nothing can be said before two seeds of a cell and of the baseline are trained."
            : "With one seed nothing can be said: two runs that differ only in their seed differ, too."}
        </p>
      )}
      {study.done > 0 ? (
        <Learning study={study} on={on} file={file} folder={folder} />
      ) : (
        !live && (
          <p class="quiet">
            Nothing of it is trained here. Each cell is trained once for every seed, seed by seed; stopped, it
            goes on where it was.
          </p>
        )
      )}
      {(live || done < total) && <Live study={study} job={live ? job : undefined} />}
      {Object.keys(study.cells[0]?.lengths ?? {}).length > 0 && <Lengths study={study} />}
      {study.study && (
        <details class="said">
          <summary data-control="bench.study-file">The study file</summary>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys */}
          <pre tabIndex={0}>{study.study.trim()}</pre>
        </details>
      )}
    </div>
  );
}

const MANY = 4; // sentences that say nothing is shown, before they are folded

/** What differs first; how sure it is last; that nothing is shown behind a fold where there is much of it. */
function Conclusion({ study, whole }: { study: Study; whole: boolean }) {
  const said = study.conclusion.map((text) => text.replaceAll(/([( ])-(\d)/g, "$1−$2"));
  const [last, rest] = [said.filter((t) => !t.startsWith("**")), said.filter((t) => t.startsWith("**"))];
  const silent = rest.filter((t) => /^\*\*.*?\*\*: /.test(t));
  const telling = rest.filter((t) => !silent.includes(t));
  const line = (text: string) => (
    <li key={text}>
      <Sentence text={text} />
    </li>
  );
  return (
    <section class="card conclusion" aria-label="Conclusion">
      <h2>What the numbers support{whole ? "" : " so far"}</h2>
      {telling.length > 0 && <ul>{telling.map(line)}</ul>}
      {silent.length > MANY ? (
        <details>
          <summary data-control="bench.silent">
            {silent.length} settings for which no difference is shown, and how large one could be
          </summary>
          <ul>{silent.map(line)}</ul>
        </details>
      ) : (
        silent.length > 0 && <ul>{silent.map(line)}</ul>
      )}
      {last.map((text) => (
        <p key={text} class="quiet">
          <Sentence text={text} />
        </p>
      ))}
    </section>
  );
}

function EditFile({ file }: { file: string }) {
  return (
    <Button
      control="bench.study-edit"
      title={`Edit ${file}`}
      onClick={() => go("bench", { part: "notes", note: file, edit: "1" })}
    >
      Edit the study
    </Button>
  );
}

interface NumbersProps {
  study: Study;
  done: number;
  total: number;
  job: Job | undefined;
}

function Numbers({ study, done, total, job }: NumbersProps) {
  const times = study.cells.flatMap((c) => Object.values(c.seconds)).filter((s) => s > 0);
  const each = times.length > 0 ? times.reduce((a, b) => a + b, 0) / times.length : undefined;
  const left = total - done - (job ? share(job, study) : 0);
  const tokens = study.cells.find((c) => c.tokens !== null)?.tokens;
  const facts: Figure[] = [
    ["cells", count(study.cells.length)],
    ["seeds", count(study.seeds.length)],
    ["runs done", `${count(done)} / ${count(total)}`],
    ["steps a run", count(study.steps)],
    ["tokens a run", short(tokens)],
    ["a run", duration(each), "the mean of the finished ones, on the machine as it was then"],
    ...(left > 0
      ? ([
          [
            "left",
            each === undefined ? "after the first run" : `about ${duration(left * each)}`,
            "from the finished runs",
          ],
        ] as [string, string, string][])
      : []),
  ];
  return <Figures of={facts} />;
}

export function NoStudy({ onNew }: { onNew: () => void }) {
  return (
    <Empty title="No study yet">
      <p>
        Two runs that differ only in their seed differ in their loss, too. A study trains every setting on
        several seeds and compares in pairs, so that you know what a difference is worth.
      </p>
      <p>
        <Button control="bench.first-study" kind="main" onClick={onNew}>
          Write the first study
        </Button>
      </p>
    </Empty>
  );
}
