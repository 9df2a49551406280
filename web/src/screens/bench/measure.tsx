/** One of `cllm bench`'s commands: options, how long, what else the machine does, the measurement itself. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { Button } from "../../controls";
import { go } from "../../state/route";
import { ago, duration } from "../train/words";
import { type Around, api, type Job, type Value } from "./api";
import { day, short } from "./figures";
import { Sentence } from "./markdown";
import { OptionField } from "./option-field";
import { changed, estimate, line, quoted, type Values } from "./options";
import {
  clock,
  commandOf,
  commands,
  jobs,
  living,
  newest,
  newestTables,
  news,
  tables,
  waited,
} from "./state";

const drafts = signal<Readonly<Record<string, Values>>>({});

/** The state of a job in a word, and its dot. */
export function stateOf(job: Job, wrote: boolean): { word: string; dot: string } {
  if (job.state !== "ended") return { word: job.state, dot: job.state };
  if (job.code === 130) return { word: "stopped", dot: "stopped" };
  if (job.code === 1 && wrote) return { word: "done: a figure is outside its target", dot: "failed" };
  if (job.code === 0 || (job.code === null && wrote)) return { word: "done", dot: "done" };
  if (job.code === null && job.error === null) return { word: "ended", dot: "stopped" };
  return { word: "failed", dot: "failed" };
}

export function Measure({ name }: { name: string }) {
  const command = commands.value?.find((c) => c.name === name);
  const [busy, setBusy] = useState(false);
  const values = drafts.value[name] ?? {};
  const running = jobs.value.benches.find(living);
  const mine = newest(jobs.value.benches, (j) => j.what === name);
  if (!commands.value) return <div class="page" aria-busy="true" />;
  if (!command)
    return (
      <div class="page">
        <Back />
        <h1>{name}</h1>
        <p class="quiet">There is no such measurement; those that there are stand in the list.</p>
      </div>
    );
  const set = (option: string, value: Value | Value[]) => {
    drafts.value = { ...drafts.peek(), [name]: { ...values, [option]: value } };
  };
  const words = line(command, values);
  const begin = async () => {
    setBusy(true);
    try {
      await api.start(name, changed(command, values));
    } catch (error) {
      tell(error);
    } finally {
      setBusy(false);
    }
  };
  const missing = command.options.some((o) => o.required && values[o.name] === undefined);
  return (
    <div class="page">
      <header class="page-head">
        <Back />
        <div class="page-title">
          <h1>{name}</h1>
          <p class="quiet">
            <Sentence text={command.about} />
          </p>
          {command.more && <p class="quiet">{command.more}</p>}
        </div>
      </header>
      <section class="card" aria-label="Options">
        {command.options.length > 0 && (
          <div class="options">
            {command.options.map((option) => (
              <OptionField
                key={option.name}
                option={option}
                value={values[option.name] ?? option.default}
                onChange={(value) => set(option.name, value)}
              />
            ))}
          </div>
        )}
        <p class="took">
          <b>How long</b> {estimate(command, words, waited.value)}
        </p>
        <Surroundings hidden={living(running)} />
        <div class="start">
          <Button
            control="bench.start"
            kind="main"
            disabled={busy || living(running) || missing}
            onClick={() => void begin()}
          >
            {living(running) ? `${running!.what} is being measured` : "Measure"}
          </Button>
          {words.length > 0 && (
            <Button
              control="bench.defaults"
              kind="quiet"
              onClick={() => {
                drafts.value = { ...drafts.peek(), [name]: {} };
              }}
            >
              Its own options
            </Button>
          )}
          <code class="command-line">{quoted(["cllm", "bench", name, ...words])}</code>
        </div>
      </section>
      {mine && <Running key={mine.id} job={mine} />}
      <Found name={name} mine={mine} />
    </div>
  );
}

/** The tables that this measurement has written before, here or elsewhere. */
function Found({ name, mine }: { name: string; mine: Job | undefined }) {
  const found = newestTables(tables.value ?? []).filter((t) => commandOf(t.newest.name) === name);
  if (!tables.value) return null;
  if (found.length === 0)
    return mine ? null : (
      <p class="quiet">
        No figures of it in this workspace yet. What is measured is kept in benchmarks/history.
      </p>
    );
  return (
    <section class="card" aria-label="Saved figures">
      <h2>Saved figures</h2>
      <ul class="tables">
        {found.map(({ newest: one, times }) => (
          <li key={one.name}>
            <button
              type="button"
              class="table-link"
              data-control="bench.open-result"
              onClick={() => go("bench", { part: "measure", table: one.name })}
            >
              <span>
                {one.title}
                <span class="table-when">
                  {day(one.date)} · <span class="mono">{short(one.commit)}</span> · {one.machine.name}
                </span>
              </span>
              <span class="table-go">{times > 1 ? `${times} measurements` : "Figures"} →</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

export function Back() {
  return (
    <Button
      control="bench.back"
      class="back"
      kind="quiet"
      onClick={() => {
        const part = new URLSearchParams(location.hash.split("?")[1]).get("part");
        go("bench", { part: part ?? "measure", list: "1" });
      }}
    >
      ← List
    </Button>
  );
}

/** What else the machine does: a figure of a busy machine says little. Looked at every five seconds. */
function Surroundings({ hidden }: { hidden: boolean }) {
  const [around, setAround] = useState<Around>();
  useEffect(() => {
    if (hidden) return;
    const stop = new AbortController();
    const ask = () => {
      if (document.hidden) return;
      api
        .around(stop.signal)
        .then(setAround)
        .catch((error: unknown) => {
          if (!isAbort(error)) setAround(undefined);
        });
    };
    ask();
    const timer = setInterval(ask, 5000);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [hidden]);
  if (hidden || !around) return null;
  const trained = around.jobs.filter((j) => j.kind !== "bench");
  const share = around.busy === null ? undefined : Math.round(100 * around.busy);
  const loud = trained.length > 0 || (share ?? 0) > 15;
  return (
    <p class={loud ? "around around-loud" : "around"} data-busy={loud}>
      <b>What else runs</b>{" "}
      {trained.length > 0 && (
        <>
          {trained.map((j) => j.name.replace(/^runs\//, "")).join(", ")} {trained.length === 1 ? "is" : "are"}{" "}
          in training.{" "}
        </>
      )}
      {share === undefined
        ? `${around.cores} cores.`
        : `${share}\u202f% of ${around.cores} ${around.cores === 1 ? "core is" : "cores are"} at work.`}
      {loud
        ? " What is measured now is measured on a busy machine: pause what can be paused, or read the figures as ratios."
        : " Quiet enough to measure."}
    </p>
  );
}

/** A measurement under way or the last one: its state, what it says, the tables it wrote. */
function Running({ job }: { job: Job }) {
  const [log, setLog] = useState("");
  const [found, setFound] = useState<{ file: string; name: string; title: string }[]>();
  const [open, setOpen] = useState(false);
  const live = living(job);
  useEffect(() => {
    const stop = new AbortController();
    const ask = () =>
      api
        .job("bench", job.run, stop.signal)
        .then((now) => {
          setLog(now.log);
          setFound(now.tables);
        })
        .catch((error: unknown) => {
          if (!isAbort(error)) tell(error);
        });
    void ask();
    if (!live) return () => stop.abort();
    const timer = setInterval(() => !document.hidden && void ask(), 1500);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [job.id, live, news.value]);
  const command = commands.value?.find((c) => c.name === job.what);
  const before = command?.times.find((t) => JSON.stringify(t.options) === JSON.stringify(job.options));
  const passed = Math.max(0, clock.value - job.time);
  const took = command?.times.find((t) => t.time === job.time)?.seconds;
  const state = stateOf(job, (found?.length ?? 0) > 0);
  const stop = async () => {
    try {
      await api.act("bench", job.run, "stop");
    } catch (error) {
      tell(error);
    }
  };
  return (
    <section class="card job" aria-label="The newest measurement" data-state={state.word}>
      <div class="job-head">
        <p class="job-words">
          <span class={`dot dot-${state.dot}`} aria-hidden="true" />
          <b>{state.word}</b>
          <span class="quiet">
            {live
              ? `for ${duration(passed)}${before ? ` of about ${duration(before.seconds)}` : ""}`
              : `${took ? `in ${duration(took)}, ` : ""}${ago(job.time)}`}
          </span>
        </p>
        <span class="mono quiet job-options">
          {job.options.length > 0 ? quoted(job.options) : "its own options"}
        </span>
        {live && (
          <Button
            control="bench.stop"
            kind={job.state === "stopping" ? "danger" : "plain"}
            title={
              job.state === "stopping"
                ? "End at once"
                : "Stop: as Ctrl-C; a measurement writes nothing before its end"
            }
            onClick={() => void stop()}
          >
            {job.state === "stopping" ? "End at once" : "Stop"}
          </Button>
        )}
      </div>
      {live &&
        (before ? (
          <progress
            class="view-bar"
            max={1}
            value={Math.min(0.99, passed / before.seconds)}
            aria-label="time"
          />
        ) : (
          <div class="waiting" aria-hidden="true" />
        ))}
      {job.error && <pre class="job-error">{job.error}</pre>}
      {found && found.length > 0 && (
        <ul class="tables">
          {found.map((t) => (
            <li key={t.file}>
              <button
                type="button"
                class="table-link"
                data-control="bench.open-result"
                onClick={() => go("bench", { part: "measure", table: t.name, file: t.file })}
              >
                <span>{t.title}</span>
                <span class="table-go">Figures →</span>
              </button>
            </li>
          ))}
        </ul>
      )}
      {log.trim() && (
        <details
          class="said"
          open={open || (live && !before) || state.dot === "failed"}
          onToggle={(e) => setOpen(e.currentTarget.open)}
        >
          <summary data-control="bench.log">What it says</summary>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys */}
          <pre tabIndex={0}>{log.trim().split("\n").slice(-60).join("\n")}</pre>
        </details>
      )}
      {!live && !job.error && found?.length === 0 && (
        <p class="quiet">It was stopped before it wrote a figure. Measure again when there is time.</p>
      )}
    </section>
  );
}
