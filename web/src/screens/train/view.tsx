/** One run in full: figures, what can be done with it, curves, and what it left: samples, checkpoints, notes, settings. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell } from "../../api/client";
import { watchTopic } from "../../api/socket";
import { Button, type Figure, Figures } from "../../controls";
import { toast } from "../../state/toasts";
import { api, type Detail, type Row } from "./api";
import { Curves } from "./curves";
import { Checkpoints, Differences, Log, Notes, Samples, Settings } from "./parts";
import { STATE_WORDS } from "./runs";
import { alive, refresh, rows } from "./state";
import { count, duration, loss, short } from "./words";

const tab = signal("samples");

interface ViewProps {
  run: string;
  others: readonly string[];
  onBack: () => void;
  onLike: (detail: Detail, weights: boolean) => void;
}

export function View({ run, others, onBack, onLike }: ViewProps) {
  const [detail, setDetail] = useState<Detail>();
  const [missing, setMissing] = useState<string>();
  const [news, setNews] = useState(0);
  const row = rows.value?.find((r) => r.name === run);
  // what a look at the run would find changed
  const mark = row ? `${row.state} ${row.samples} ${row.checkpoints} ${row.alerts}` : "";

  useEffect(() => {
    const stop = new AbortController();
    api
      .run(run, stop.signal)
      .then((found) => {
        setDetail(found);
        setMissing(undefined);
      })
      .catch((error: unknown) => {
        if (isAbort(error)) return;
        setMissing(error instanceof Error ? error.message : String(error));
      });
    return () => stop.abort();
  }, [run, mark, news]);
  useEffect(() => watchTopic("jobs", () => setNews((n) => n + 1)), []);

  if (missing && !detail)
    return (
      <div class="view">
        <Back onBack={onBack} />
        <p class="view-missing">{missing}</p>
      </div>
    );
  const shown = row ?? detail;
  if (!shown) return <div class="view" aria-busy="true" />;
  const live = alive(shown);
  const tabs = [
    { name: "samples", title: "Samples", number: detail?.samples.length },
    { name: "checkpoints", title: "Checkpoints", number: detail?.checkpoints.filter((c) => c.there).length },
    { name: "notes", title: "Notes", number: undefined },
    { name: "settings", title: "Settings", number: undefined },
    ...(others.length > 0 ? [{ name: "differences", title: "Differences", number: undefined }] : []),
    { name: "log", title: "Output", number: undefined },
  ];
  const open = tabs.some((t) => t.name === tab.value) ? tab.value : "samples";
  return (
    <div class="view">
      <header class="view-head">
        <Back onBack={onBack} />
        <div class="view-title">
          <h1>{run.replace(/^runs\//, "")}</h1>
          <p class="view-words">
            <span class={`dot dot-${shown.state}`} aria-hidden="true" />
            <b>{STATE_WORDS[shown.state]}</b>
            {shown.words !== STATE_WORDS[shown.state] && <span class="quiet"> {shown.words}</span>}
          </p>
        </div>
        <Actions row={shown} run={run} detail={detail} onLike={onLike} />
      </header>
      {shown.steps && (live || shown.step > 0) ? (
        <progress
          class="view-bar"
          max={shown.steps}
          value={shown.step}
          aria-label={`step ${shown.step} of ${shown.steps}`}
        />
      ) : null}
      <RunFigures row={shown} />
      {detail && detail.alerts.length > 0 && (
        <ul class="alerts" aria-label="Alerts">
          {detail.alerts.map((alert) => (
            <li key={`${alert.kind}${alert.step}`} class={`alert alert-${alert.level}`}>
              <span class="alert-step mono">step {count(alert.step)}</span>
              <span>{alert.text}</span>
            </li>
          ))}
        </ul>
      )}
      <Curves runs={[run, ...others]} />
      <div class="tabs" role="tablist" aria-label="What the run left">
        {tabs.map((t) => (
          <button
            key={t.name}
            type="button"
            role="tab"
            data-control={`train.tab-${t.name}`}
            aria-selected={t.name === open}
            onClick={() => {
              tab.value = t.name;
            }}
          >
            {t.title}
            {t.number !== undefined && <span class="tab-number mono">{t.number}</span>}
          </button>
        ))}
      </div>
      <div class="tab-body" role="tabpanel" aria-label={open}>
        {detail && open === "samples" && <Samples detail={detail} live={live} />}
        {detail && open === "checkpoints" && <Checkpoints detail={detail} run={run} />}
        {detail && open === "notes" && <Notes key={run} run={run} text={detail.notes} />}
        {detail && open === "settings" && <Settings detail={detail} />}
        {open === "differences" && <Differences runs={[run, ...others]} />}
        {open === "log" && <Log run={run} mark={`${mark}${news}`} job={detail?.job ?? null} />}
      </div>
    </div>
  );
}

function Back({ onBack }: { onBack: () => void }) {
  return (
    <Button control="train.back" class="back" kind="quiet" onClick={onBack}>
      ← Runs
    </Button>
  );
}

interface ActionsProps {
  row: Pick<Row, "state" | "step" | "steps" | "checkpoints"> | Detail;
  run: string;
  detail: Detail | undefined;
  onLike: (detail: Detail, weights: boolean) => void;
}

function Actions({ row, run, detail, onLike }: ActionsProps) {
  const [busy, setBusy] = useState<string>();
  const act = async (what: "pause" | "continue" | "stop" | "resume") => {
    setBusy(what);
    try {
      await api.act(what, run);
      if (what === "stop" && row.state !== "stopping") toast("It finishes its step, saves, and ends.");
      await refresh();
    } catch (error) {
      tell(error);
    } finally {
      setBusy(undefined);
    }
  };
  const live = alive(row);
  const left = !row.steps || row.step < row.steps;
  return (
    <div class="view-actions">
      {row.state === "running" && (
        <Button
          control="train.pause"
          disabled={busy !== undefined}
          title="Pause: it stays in memory and goes on at once"
          onClick={() => void act("pause")}
        >
          Pause
        </Button>
      )}
      {row.state === "paused" && (
        <Button
          control="train.continue"
          kind="main"
          disabled={busy !== undefined}
          onClick={() => void act("continue")}
        >
          Continue
        </Button>
      )}
      {live && (
        <Button
          control="train.stop"
          kind={row.state === "stopping" ? "danger" : "plain"}
          disabled={busy !== undefined}
          title={
            row.state === "stopping"
              ? "End at once: what was done since the last checkpoint is lost"
              : "Stop: finish the step, save, end; it can be resumed"
          }
          onClick={() => void act("stop")}
        >
          {row.state === "stopping" ? "End at once" : "Stop and save"}
        </Button>
      )}
      {!live && left && row.state !== "done" && detail?.stop !== "non-finite" && (
        <Button
          control="train.resume"
          kind="main"
          disabled={busy !== undefined}
          title="Go on from the newest checkpoint, byte for byte as if it had not stopped"
          onClick={() => void act("resume")}
        >
          Resume
        </Button>
      )}
      {detail && !live && Object.keys(detail.settings).length > 0 && (
        <Button
          control="train.like"
          title="A new run that begins with these settings"
          onClick={() => onLike(detail, false)}
        >
          New run like this
        </Button>
      )}
      {detail &&
        !live &&
        detail.checkpoints.some((c) => c.there && c.step > 0) &&
        detail.stop !== "non-finite" && (
          <Button
            control="train.from"
            title="A new run that begins with the weights of its newest checkpoint"
            onClick={() => onLike(detail, true)}
          >
            From its weights
          </Button>
        )}
    </div>
  );
}

function RunFigures({ row }: { row: Row | Detail }) {
  const rate = row.tokens_per_s;
  const perStep = row.step > 0 && row.tokens > 0 ? row.tokens / row.step : undefined;
  const eta =
    alive(row) && row.steps && rate && perStep && row.state !== "paused"
      ? ((row.steps - row.step) * perStep) / rate
      : undefined;
  const facts: Figure[] = [
    ["step", row.steps ? `${count(row.step)} / ${count(row.steps)}` : count(row.step)],
    ["loss", loss(row.loss), "nats per token, of the newest step"],
    ["best validation", loss(row.best), row.best_step ? `at step ${count(row.best_step)}` : undefined],
    ["bits per byte", loss(row.bits), "of the newest evaluation"],
    ["tokens/s", short(rate)],
    alive(row)
      ? ["left", duration(eta), "at the present speed, without evaluations"]
      : ["tokens", short(row.tokens)],
    ["parameters", short(row.parameters)],
  ];
  return <Figures of={facts} />;
}
