/** What the run will cost, while it is being filled in: parameters, memory, time. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, words } from "../../api/client";
import { Button } from "../../controls";
import { api, type Size, type Speed } from "./api";
import { preset, values } from "./draft";
import { active } from "./state";
import { bytes, count, duration, short } from "./words";

export interface Planned {
  size: Size | undefined;
  /** What is wrong, in the words of the command line. */
  problem: string | undefined;
}

/** The plan of the draft, asked again a moment after each change. */
export function usePlan(): Planned {
  const [planned, setPlanned] = useState<Planned>({ size: undefined, problem: undefined });
  const key = JSON.stringify([preset.value, values.value]);
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      api.plan(preset.peek(), values.peek(), stop.signal).then(
        (size) => setPlanned({ size, problem: undefined }),
        (error: unknown) => {
          if (!isAbort(error)) setPlanned((before) => ({ size: before.size, problem: words(error) }));
        },
      );
    }, 200);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key]);
  return planned;
}

/** The setting that a message of the server is about. */
export function keyIn(problem: string | undefined): string | undefined {
  return problem ? /^settings: ([\w.]+):/.exec(problem)?.[1] : undefined;
}

const HUES = ["plot-1", "plot-2", "plot-3", "plot-4", "plot-5", "plot-6"];

export function PlanCard({ planned }: { planned: Planned }) {
  const { size, problem } = planned;
  const [speed, setSpeed] = useState<Speed>();
  const [measured, setMeasured] = useState("");
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<string>();
  const shape = size ? `${size.parameters} ${size.tokens_a_step} ${size.bytes_total}` : "";
  useEffect(() => {
    if (measured !== shape) setSpeed(undefined);
  }, [shape]);
  const measure = async () => {
    setBusy(true);
    setFailed(undefined);
    try {
      setSpeed(await api.speed(preset.peek(), values.peek()));
      setMeasured(shape);
    } catch (error) {
      setFailed(words(error));
    } finally {
      setBusy(false);
    }
  };
  if (problem)
    return (
      <section class="plan" aria-label="Plan" aria-live="polite">
        <h3>Plan</h3>
        <p class="field-error">{problem.replace(/^settings: /, "")}</p>
      </section>
    );
  if (!size)
    return (
      <section class="plan" aria-label="Plan" aria-busy="true">
        <h3>Plan</h3>
        <p class="quiet">Counting …</p>
      </section>
    );
  const each = speed?.seconds_a_step ?? undefined;
  const steps =
    size.steps ?? (each && size.minutes ? Math.floor((size.minutes * 60 * 0.96) / each) : undefined);
  const tokens = steps === undefined ? undefined : steps * size.tokens_a_step;
  const biggest = Object.entries(size.bytes).sort((a, b) => b[1] - a[1]);
  return (
    <section class="plan" aria-label="Plan" aria-live="polite">
      <h3>Plan</h3>
      <dl class="plan-facts">
        <div>
          <dt>parameters</dt>
          <dd class="mono plan-big">{short(size.parameters)}</dd>
        </div>
        <div>
          <dt>memory</dt>
          <dd class={`mono plan-big ${size.fits ? "" : "warm"}`}>{bytes(size.bytes_total)}</dd>
        </div>
        <div>
          <dt>time</dt>
          <dd class="mono plan-big">
            {size.steps === null
              ? duration((size.minutes ?? 0) * 60)
              : each
                ? duration(size.steps * each)
                : "–"}
          </dd>
        </div>
      </dl>
      <div class="memory" role="img" aria-label={`memory by part, of ${bytes(size.machine_bytes)}`}>
        {biggest.map(([part, held], i) => (
          <span
            key={part}
            title={`${part}: ${bytes(held)}`}
            style={{
              flexGrow: held,
              background: `var(--${HUES[i % HUES.length]})`,
              opacity: i < 6 ? 0.9 : 0.45,
            }}
          />
        ))}
      </div>
      <p class="quiet">
        {biggest
          .slice(0, 3)
          .map(([part, held]) => `${part} ${bytes(held)}`)
          .join(", ")}
        ; the machine has {bytes(size.machine_bytes)}.
        {!size.fits && " It does not fit: a smaller batch, sequence or model does."}
      </p>
      <p class="quiet">
        {short(size.tokens_a_step)} tokens a step, {short(size.flops_per_token)} operations a token,
        checkpoints of {bytes(size.checkpoint_bytes)}, on the {size.device === "cuda" ? "GPU" : "processor"}.
      </p>
      {speed?.tokens_per_s ? (
        <p>
          Measured: <b class="mono">{short(speed.tokens_per_s)}</b> tokens/s, {(each! * 1000).toPrecision(3)}{" "}
          ms a step
          {steps !== undefined && (
            <>
              : <b class="mono">{count(steps)}</b> steps, {short(tokens)} tokens
              {size.parameters > 0 && `, ${(tokens! / size.parameters).toPrecision(2)} a parameter`}
            </>
          )}
          .
          {tokens !== undefined && tokens < 20 * size.parameters && (
            <span class="quiet">
              {" "}
              Below about 20 tokens a parameter a smaller model learns more in the same time.
            </span>
          )}
        </p>
      ) : (
        <Button control="train.speed" disabled={busy || !size.fits} onClick={() => void measure()}>
          {busy ? "Measuring …" : "Measure the speed"}
        </Button>
      )}
      {active.value.length > 0 && !speed && (
        <p class="quiet">
          {active.value.length === 1 ? "A run is" : `${active.value.length} runs are`} using the machine now.
        </p>
      )}
      {failed && <p class="field-error">{failed}</p>}
    </section>
  );
}
