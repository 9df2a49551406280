/** A new run: data, model, training, and what it will cost. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { tell, words } from "../../api/client";
import { Button, NumberField, Section, Segmented, TextField } from "../../controls";
import { api, type Setting } from "./api";
import { DataPicker } from "./data";
import { choosePreset, data, form, from, name, preset, say, settingOf, values } from "./draft";
import { keyIn, PlanCard, usePlan } from "./plan";
import { SettingField } from "./setting";
import { refresh } from "./state";

const MODEL = [
  ["model.layers", "Layers"],
  ["model.width", "Width"],
  ["model.heads", "Heads"],
  ["model.ff", "Feed-forward"],
  ["model.context", "Context"],
  ["model.dropout", "Dropout"],
] as const;
const TRAINING = [
  ["train.batch", "Rows a batch"],
  ["optim.lr", "Learning rate"],
  ["schedule.name", "Schedule"],
  ["data.tokenizer", "Tokenizer"],
  ["seed", "Seed"],
] as const;
const KNOWN = new Set<string>([
  "train.steps",
  "train.max_minutes",
  ...[...MODEL, ...TRAINING].map(([key]) => key),
]);
const advanced = signal("");

interface NewRunProps {
  onStarted: (run: string) => void;
  onBack: () => void;
}

export function NewRun({ onStarted, onBack }: NewRunProps) {
  const [busy, setBusy] = useState(false);
  const [unfolded, setUnfolded] = useState(advanced.peek() !== "");
  const [problem, setProblem] = useState<string>();
  const planned = usePlan();
  useEffect(() => {
    if (form.peek() === undefined)
      api.form().then(
        (found) => {
          form.value = found;
        },
        (error: unknown) => tell(error),
      );
  }, []);
  useEffect(() => setProblem(undefined), [data.value, values.value, preset.value, name.value]);
  const settings = form.value?.settings;
  if (!settings) return <div class="new" aria-busy="true" />;
  const wrong = keyIn(planned.problem);
  const complaint = planned.problem?.replace(/^settings: [\w.]+: /, "");
  const field = (key: string, label?: string, control?: string) => {
    const setting = settings.find((s) => s.key === key);
    return setting ? (
      <SettingField
        key={key}
        setting={setting}
        error={wrong === key ? complaint : undefined}
        {...(label ? { label } : {})}
        {...(control ? { control } : {})}
      />
    ) : null;
  };
  const steps = settingOf("train.steps");
  const byMinutes = typeof steps !== "number";
  const start = async () => {
    setBusy(true);
    try {
      const answer = await api.start({
        name: name.value,
        data: [...data.value],
        preset: preset.value,
        settings: values.value,
        start: from.value ?? null,
      });
      name.value = "";
      await refresh();
      onStarted(answer.run);
    } catch (error) {
      setProblem(words(error));
    } finally {
      setBusy(false);
    }
  };
  const why =
    data.value.length === 0
      ? "Choose a text first."
      : planned.problem
        ? "One setting is wrong; see the plan."
        : planned.size && !planned.size.fits
          ? "It does not fit the memory."
          : undefined;
  return (
    <div class="new">
      <header class="new-head">
        <Button control="train.back" class="back" kind="quiet" onClick={onBack}>
          ← Runs
        </Button>
        <h1>New run</h1>
      </header>
      <div class="new-columns">
        <div class="new-form">
          <section class="card" aria-label="Text">
            <h2>
              <span class="card-number">1</span> Text
            </h2>
            <DataPicker />
          </section>
          <section class="card" aria-label="Model">
            <h2>
              <span class="card-number">2</span> Model
            </h2>
            <Segmented
              control="train.preset"
              label="Size"
              value={preset.value}
              options={Object.keys(form.value?.presets ?? {}).map((p) => ({ value: p, label: p }))}
              onChange={choosePreset}
            />
            <div class="grid">{MODEL.map(([key, label]) => field(key, label, `train.${key}`))}</div>
          </section>
          <section class="card" aria-label="Training">
            <h2>
              <span class="card-number">3</span> Training
            </h2>
            <div class="grid">
              <Segmented
                control="train.length"
                label="For"
                value={byMinutes ? "minutes" : "steps"}
                options={[
                  { value: "minutes", label: "minutes" },
                  { value: "steps", label: "steps" },
                ]}
                onChange={(v) => {
                  say("train.steps", v === "steps" ? 1000 : undefined);
                  say("train.max_minutes", v === "steps" ? undefined : 5);
                }}
              />
              {byMinutes ? (
                <NumberField
                  control="train.minutes"
                  label="Minutes"
                  min={0.05}
                  value={Number(values.value["train.max_minutes"] ?? 5)}
                  onChange={(v) => say("train.max_minutes", v)}
                />
              ) : (
                <NumberField
                  control="train.steps"
                  label="Steps"
                  whole
                  min={1}
                  step={100}
                  value={Number(steps)}
                  onChange={(v) => say("train.steps", v)}
                />
              )}
              {TRAINING.map(([key, label]) => field(key, label, `train.${key}`))}
            </div>
          </section>
          <div class="card card-flush">
            <Section control="train.all-settings" title="All settings" open={unfolded} onToggle={setUnfolded}>
              <AllSettings settings={settings} wrong={wrong} complaint={complaint} />
            </Section>
          </div>
        </div>
        <div class="new-side">
          <PlanCard planned={planned} />
          <section class="plan" aria-label="Start">
            {from.value && (
              <p>
                Starts from the weights of <b>{from.value}</b>.{" "}
                <Button
                  control="train.from-none"
                  kind="quiet"
                  onClick={() => {
                    from.value = undefined;
                  }}
                >
                  From fresh ones instead
                </Button>
              </p>
            )}
            <TextField
              control="train.name"
              label="Name"
              live
              placeholder={defaultName(data.value[0])}
              value={name.value}
              onChange={(v) => {
                name.value = v;
              }}
            />
            <Button
              control="train.start"
              kind="main"
              disabled={busy || why !== undefined}
              title={why ?? "Start the training"}
              onClick={() => void start()}
            >
              {busy ? "Starting …" : "Start training"}
            </Button>
            {why && <p class="quiet">{why}</p>}
            {problem && (
              <p class="field-error" role="alert">
                {problem}
              </p>
            )}
            <p class="quiet">
              It runs in a process of its own: closing this page, or the studio, does not stop it.
            </p>
          </section>
        </div>
      </div>
    </div>
  );
}

function defaultName(text: string | undefined): string {
  const stem = (text ?? "").split("/").pop()?.split(".")[0] ?? "";
  return stem ? `${stem} (when free)` : "as the text";
}

interface AllSettingsProps {
  settings: readonly Setting[];
  wrong: string | undefined;
  complaint: string | undefined;
}

function AllSettings({ settings, wrong, complaint }: AllSettingsProps) {
  const low = advanced.value.toLowerCase();
  const found = settings.filter((s) => !KNOWN.has(s.key) && `${s.key} ${s.help}`.toLowerCase().includes(low));
  return (
    <>
      <TextField
        control="train.setting-filter"
        label="Find a setting"
        quiet
        live
        placeholder="Find a setting: clip, warmup, sample …"
        value={advanced.value}
        onChange={(v) => {
          advanced.value = v;
        }}
      />
      <div class="grid">
        {found.map((setting) => (
          <SettingField
            key={setting.key}
            setting={setting}
            error={wrong === setting.key ? complaint : undefined}
          />
        ))}
      </div>
      {found.length === 0 && <p class="quiet">No other setting has that in its name.</p>}
    </>
  );
}
