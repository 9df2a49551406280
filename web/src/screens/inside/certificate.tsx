/** The certificates of a run: proven figures with the table of tensors, and the start of another. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, tell, words } from "../../api/client";
import { watchTopic } from "../../api/socket";
import { Button, NumberField, Toggle } from "../../controls";
import { api, type Certificate, type Job, type Row, type Short } from "./api";
import { above, figure, shape, whole } from "./figures";
import { certificate, fixed, place, structure } from "./state";

interface Listed {
  certificates: readonly Short[];
  job: Job | null;
}

export function CertificateView() {
  const [list, setList] = useState<Listed>();
  const [problem, setProblem] = useState<string>();
  const [news, setNews] = useState(0);
  const run = place.value.run;
  // the topic says how far each certification is; when one has ended, its file is there
  useEffect(() => {
    let before = "";
    return watchTopic("certify", (value) => {
      const mine = (value as { run: string; job: Job }[]).find((one) => one.run === run)?.job;
      if (!mine) return;
      const now = `${mine.id} ${mine.state}`;
      setList((held) => held && { ...held, job: mine });
      if (now !== before) setNews((n) => n + 1);
      before = now;
    });
  }, [run]);
  useEffect(() => {
    const stop = new AbortController();
    api.certificates(run, stop.signal).then(
      (found) => {
        setList(found);
        setProblem(undefined);
      },
      (error: unknown) => {
        if (!isAbort(error)) setProblem(words(error));
      },
    );
    return () => stop.abort();
  }, [run, news]);
  if (problem) return <p class="field-error in-waiting">{problem}</p>;
  if (!list) return <p class="quiet in-waiting">Reading the certificates …</p>;
  const of = fixed.value.checkpoint;
  const files = list.certificates;
  const chosen =
    files.find((c) => c.name === certificate.value) ?? files.find((c) => c.checkpoint === of) ?? files[0];
  return (
    <div class="two certificates">
      <div
        class="certificate-main"
        role="region"
        aria-label="Certificate"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, by the keyboard too
        tabIndex={0}
      >
        {chosen ? <One run={run} of={chosen} /> : <NoneYet />}
      </div>
      <aside class="side" aria-label="Certificates of the run">
        <Start job={list.job} onChange={() => setNews((n) => n + 1)} />
        <h3>{files.length ? "Certificates of this run" : "No certificate yet"}</h3>
        <ul class="files">
          {files.map((c) => (
            <li key={c.name}>
              <button
                type="button"
                class="file"
                data-control="inside.file"
                aria-pressed={c.name === chosen?.name}
                onClick={() => {
                  certificate.value = c.name;
                }}
              >
                {c.error ? (
                  <span class="in-figures-bad">cannot be read</span>
                ) : (
                  <>
                    <Verdict ok={c.ok} verdict={c.verdict} />
                    <span>
                      step {whole(c.step)}
                      {c.checkpoint === of && <b class="this"> this one</b>}, {c.tokens} tokens, {c.precision}
                      {c.adamw && ", AdamW"}
                    </span>
                  </>
                )}
                <span class="quiet mono">{when(c)}</span>
              </button>
            </li>
          ))}
        </ul>
      </aside>
    </div>
  );
}

function when(c: Short): string {
  const date = new Date(c.date || c.changed * 1000);
  return date.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

function NoneYet() {
  return (
    <div class="none-yet">
      <h2>No certificate of this run yet</h2>
      <p class="quiet">
        A certificate encloses the exact loss and every exact gradient of one training step at hundreds of
        bits, from a specification that shares no code with the engine, and says how far the engine is from
        it. Start one at the right; 64 tokens of a small model take a second or two.
      </p>
    </div>
  );
}

function Verdict({ ok, verdict }: { ok: boolean; verdict: string }) {
  const kind = !ok ? "bad" : verdict === "REPORTED" ? "plain" : "good";
  return (
    <span class={`in-verdict in-verdict-${kind}`}>
      {!ok ? "not certified" : verdict === "REPORTED" ? "proven, reported" : "certified"}
    </span>
  );
}

function Start({ job, onChange }: { job: Job | null; onChange: () => void }) {
  const [tokens, setTokens] = useState(64);
  const [steps, setSteps] = useState(true);
  const [busy, setBusy] = useState(false);
  const of = fixed.value;
  const alive = job && job.state !== "ended";
  const act = async (what: () => Promise<unknown>) => {
    setBusy(true);
    try {
      await what();
    } catch (error) {
      tell(error);
    } finally {
      setBusy(false);
      onChange();
    }
  };
  if (alive)
    return (
      <section class="in-start" aria-label="Certification">
        <h3>{job.state === "stopping" ? "Ending …" : "Proving …"}</h3>
        <progress
          value={job.progress}
          max={1}
          aria-label="How far the proof is"
          title={`${Math.round(100 * job.progress)} %`}
        />
        <p class="mono quiet in-command">{job.command}</p>
        <Button control="inside.stop" disabled={busy} onClick={() => void act(() => api.stop(of.run))}>
          Stop
        </Button>
      </section>
    );
  return (
    <section class="in-start" aria-label="Certify">
      <h3>Certify {structure.value?.checkpoint ?? "this checkpoint"}</h3>
      <NumberField
        control="inside.tokens"
        label="Tokens of the step"
        hint="Whole rows of the run's own data"
        whole
        min={1}
        max={1 << 20}
        step={16}
        value={tokens}
        onChange={setTokens}
      />
      <Toggle
        control="inside.steps"
        label="ten optimiser steps, too"
        hint="cllm certify --step: AdamW from the state before each step"
        value={steps}
        onChange={setSteps}
      />
      <Button
        control="inside.certify"
        kind="main"
        disabled={busy}
        onClick={() => void act(() => api.certify(of, tokens, steps))}
      >
        Certify
      </Button>
      {job?.error && (
        <p class="field-error" role="alert">
          {job.error}
        </p>
      )}
    </section>
  );
}

function One({ run, of }: { run: string; of: Short }) {
  const [found, setFound] = useState<Certificate>();
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    const stop = new AbortController();
    setProblem(of.error);
    if (of.error) return;
    api.certificate(run, of.name, stop.signal).then(setFound, (error: unknown) => {
      if (!isAbort(error)) setProblem(words(error));
    });
    return () => stop.abort();
  }, [run, of.name]);
  if (problem) return <p class="field-error">{problem}</p>;
  if (!found || found.name !== of.name) return <p class="quiet">Reading {of.name} …</p>;
  const worst = Math.max(...found.tensors.map((t) => (t.allowed ? t.normwise / t.allowed : 0)), 0);
  return (
    <>
      <header class="certificate-head">
        <Verdict ok={found.ok} verdict={found.verdict} />
        <h2>
          The gradient of step {whole(found.step)}, enclosed and compared
          <span class="quiet">
            {" "}
            on {found.tokens} tokens, {whole(found.parameters)} parameters
          </span>
        </h2>
      </header>
      <div class="tiles">
        <Tile
          value={`±${above(found.loss.radius)}`}
          name="exact loss known to"
          about={found.loss.exact.replace(/[[\]]/g, "").replace("+/-", "±")}
        />
        <Tile value={above(found.loss.error)} name="engine's loss off by at most, nats" />
        <Tile value={above(found.radius)} name="widest enclosure of a gradient, rms" />
        <Tile value={above(found.errors.max)} name="engine's worst entry, rms" />
        <Tile value={above(found.worst)} name="worst tensor, normwise" />
        {worst > 0 && <Tile value={`${Math.ceil(100 * worst)} %`} name="of its budget, at most" />}
      </div>
      <p class="quiet">
        Enclosure <b>{found.enclosure}</b>; engine <span class="mono">{found.engine.name}</span>{" "}
        <b>{found.verdict}</b>; {found.bits} bits, {found.seconds.toFixed(1)} s. Errors are upper bounds in
        units of the root mean square of the tensor's exact gradient.
      </p>
      <div class="table-frame">
        <table class="table" aria-label="Tensors of the certificate">
          <thead>
            <tr>
              <th scope="col">tensor</th>
              <th scope="col">shape</th>
              <th scope="col">verdict</th>
              <th scope="col" class="numeric" title="Width of the proven enclosure, in rms">
                radius ≤
              </th>
              <th scope="col" class="numeric" title="Largest error of an entry, in rms">
                worst entry ≤
              </th>
              <th scope="col" class="numeric" title="Length of the error over length of the gradient">
                normwise ≤
              </th>
              {worst > 0 && <th scope="col">of the budget</th>}
            </tr>
          </thead>
          <tbody>
            {inOrder(found.tensors).map((t) => (
              <TensorRow key={t.name} of={t} />
            ))}
          </tbody>
        </table>
      </div>
      <pre class="statement mono">{found.statement}</pre>
    </>
  );
}

/** As the model has them; a certificate has them in the order of the backward. */
function inOrder(rows: readonly Row[]): readonly Row[] {
  const place = new Map(structure.value?.tensors.map((t, i) => [t.name, i]));
  return [...rows].sort((a, b) => (place.get(a.name) ?? 1e9) - (place.get(b.name) ?? 1e9));
}

function Tile({ value, name, about }: { value: string; name: string; about?: string }) {
  return (
    <div class="tile" title={about}>
      <b class="mono">{value}</b>
      <span class="quiet">{name}</span>
    </div>
  );
}

/** How much of its budget an error takes, at most 1. */
export function share(normwise: number, allowed: number | null): number {
  return allowed ? Math.min(1, normwise / allowed) : 0;
}

function TensorRow({ of }: { of: Row }) {
  const kind = of.verdict === "WITHIN BUDGET" ? "good" : of.verdict === "REPORTED" ? "plain" : "bad";
  return (
    <tr>
      <td class="mono">{of.name}</td>
      <td class="mono quiet">{shape(of.shape)}</td>
      <td>
        <span class={`in-verdict in-verdict-${kind}`} title={of.why}>
          {of.verdict === "WITHIN BUDGET" ? "within" : of.verdict === "REPORTED" ? "reported" : "outside"}
        </span>
      </td>
      <td class="numeric mono">{above(of.radius)}</td>
      <td
        class="numeric mono"
        title={`entry [${of.worst.join(", ")}]: exact ${of.exact}, engine ${of.engine}`}
      >
        {above(of.max)}
      </td>
      <td class="numeric mono">{above(of.normwise)}</td>
      {of.allowed !== null && (
        <td>
          <span
            class="budget"
            title={`${figure((100 * of.normwise) / of.allowed, 3)} % of ${figure(of.allowed, 2)}`}
          >
            <span class="in-bar-track">
              <span style={{ width: `${100 * share(of.normwise, of.allowed)}%` }} />
            </span>
            <span class="mono">{figure((100 * of.normwise) / of.allowed, 2)} %</span>
          </span>
        </td>
      )}
    </tr>
  );
}
