/** Text, numbers, choices and switches. Each tells its new value through `onChange` once it is a valid one. */
import { useState } from "preact/hooks";
import { classes, Field, type Named } from "./common";
import { useDraft } from "./draft";
import { readNumber } from "./numbers";

interface Labelled extends Named {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  quiet?: boolean;
  disabled?: boolean;
}

interface TextFieldProps extends Labelled {
  value: string;
  onChange: (value: string) => void;
  /** On every key instead of Enter and leaving. */
  live?: boolean;
  placeholder?: string;
  /** Numbers and formulas: the fixed-width face. */
  mono?: boolean;
  list?: readonly string[];
}

/** A line of text; told on Enter and on leaving, or on every key when `live`. Escape takes an edit back. */
export function TextField({
  control,
  label,
  hint,
  error,
  quiet,
  disabled,
  value,
  onChange,
  ...rest
}: TextFieldProps) {
  const { text, type, settle, open } = useDraft(value);
  const commit = (typed: string) => {
    settle(typed);
    if (typed !== value) onChange(typed);
  };
  return (
    <Field label={label} hint={hint} error={error} quiet={quiet}>
      {(id, note) => (
        <>
          <input
            id={id}
            data-control={control}
            class={classes("input", rest.mono && "mono")}
            type="text"
            value={text}
            placeholder={rest.placeholder}
            disabled={disabled}
            aria-describedby={note}
            aria-invalid={error !== undefined}
            autocomplete="off"
            spellcheck={false}
            list={rest.list ? `${id}-list` : undefined}
            onInput={(e) => {
              type(e.currentTarget.value, rest.live);
              if (rest.live) onChange(e.currentTarget.value);
            }}
            onBlur={(e) => open() && commit(e.currentTarget.value)}
            onKeyDown={(e) => {
              if (e.key === "Enter") commit(e.currentTarget.value);
              else if (e.key === "Escape" && e.currentTarget.value !== value) {
                e.stopPropagation();
                settle(value);
              }
            }}
          />
          {rest.list && (
            <datalist id={`${id}-list`}>
              {rest.list.map((item) => (
                <option key={item} value={item} />
              ))}
            </datalist>
          )}
        </>
      )}
    </Field>
  );
}

interface NumberFieldProps extends Labelled {
  value: number;
  onChange: (value: number) => void;
  min?: number;
  max?: number;
  step?: number;
  whole?: boolean;
}

/** A number within bounds; 1e-3 and 10^6 are understood. Arrow keys step it. What cannot be read is said below it. */
export function NumberField({
  control,
  label,
  hint,
  quiet,
  disabled,
  value,
  onChange,
  ...rest
}: NumberFieldProps) {
  const { min = -Infinity, max = Infinity, step = 1, whole = false } = rest;
  const { text, type, settle, open } = useDraft(String(value));
  const [wrong, setWrong] = useState<{ text: string; why: string }>();
  const problem = wrong && wrong.text === text ? wrong.why : undefined; // of what stands there, not of what stood there
  const tell = (typed: string) => {
    const found = readNumber(typed);
    const why =
      found === undefined
        ? "Not a number"
        : whole && !Number.isInteger(found)
          ? "A whole number, please"
          : found < min || found > max
            ? `From ${min === -Infinity ? "−∞" : min} to ${max === Infinity ? "∞" : max}`
            : undefined;
    settle(why === undefined ? String(found) : typed);
    setWrong(why === undefined ? undefined : { text: typed, why });
    if (why === undefined && found !== value) onChange(found!);
  };
  const move = (input: HTMLInputElement, steps: number) => {
    const from = readNumber(input.value) ?? value; // also from what was typed and not told yet
    const next = Math.min(max, Math.max(min, Number((from + steps * step).toPrecision(12))));
    input.value = String(next); // at once, for the next key
    settle(input.value);
    if (next !== value) onChange(next);
  };
  return (
    <Field label={label} hint={hint} error={problem} quiet={quiet}>
      {(id, note) => (
        <input
          id={id}
          data-control={control}
          class="input mono"
          type="text"
          inputMode="decimal"
          role="spinbutton"
          aria-valuenow={value}
          aria-valuemin={min === -Infinity ? undefined : min}
          aria-valuemax={max === Infinity ? undefined : max}
          value={text}
          disabled={disabled}
          aria-describedby={note}
          aria-invalid={problem !== undefined}
          autocomplete="off"
          onInput={(e) => type(e.currentTarget.value)}
          onBlur={(e) => open() && tell(e.currentTarget.value)}
          onKeyDown={(e) => {
            const typed = e.currentTarget.value;
            if (e.key === "Enter") tell(typed);
            else if (e.key === "Escape" && typed !== String(value)) {
              e.stopPropagation();
              settle(String(value));
            } else if (e.key === "ArrowUp" || e.key === "ArrowDown") {
              e.preventDefault();
              move(e.currentTarget, (e.key === "ArrowUp" ? 1 : -1) * (e.shiftKey ? 10 : 1));
            }
          }}
        />
      )}
    </Field>
  );
}

export interface Option {
  value: string;
  label: string;
  group?: string;
}

interface SelectProps extends Labelled {
  value: string;
  options: readonly Option[];
  onChange: (value: string) => void;
}

export function Select({
  control,
  label,
  hint,
  error,
  quiet,
  disabled,
  value,
  options,
  onChange,
}: SelectProps) {
  const groups = [...new Set(options.map((o) => o.group))];
  const shown = (group: string | undefined) =>
    options
      .filter((o) => o.group === group)
      .map((o) => (
        <option key={o.value} value={o.value} selected={o.value === value}>
          {o.label}
        </option>
      ));
  return (
    <Field label={label} hint={hint} error={error} quiet={quiet}>
      {(id, note) => (
        <select
          id={id}
          data-control={control}
          class="input select"
          disabled={disabled}
          aria-describedby={note}
          value={value}
          onChange={(e) => onChange(e.currentTarget.value)}
        >
          {groups.map((group) =>
            group ? (
              <optgroup key={group} label={group}>
                {shown(group)}
              </optgroup>
            ) : (
              shown(group)
            ),
          )}
        </select>
      )}
    </Field>
  );
}

interface SliderProps extends Labelled {
  value: number;
  min: number;
  max: number;
  step: number;
  onChange: (value: number) => void;
  /** The value in words, shown beside the label. */
  shown?: string;
}

export function Slider({
  control,
  label,
  hint,
  quiet,
  disabled,
  value,
  min,
  max,
  step,
  onChange,
  shown,
}: SliderProps) {
  return (
    <Field label={label} hint={hint} quiet={quiet}>
      {(id, note) => (
        <div class="slider">
          <input
            id={id}
            data-control={control}
            type="range"
            min={min}
            max={max}
            step={step}
            value={value}
            disabled={disabled}
            aria-describedby={note}
            aria-valuetext={shown}
            onInput={(e) => onChange(Number(e.currentTarget.value))}
          />
          <output for={id} class="mono">
            {shown ?? value}
          </output>
        </div>
      )}
    </Field>
  );
}

interface SegmentedProps extends Named {
  label: string;
  value: string;
  options: readonly Option[];
  onChange: (value: string) => void;
  quiet?: boolean;
}

/** A few choices side by side; the arrow keys move between them, as in a radio group. */
export function Segmented({ control, label, value, options, onChange, quiet }: SegmentedProps) {
  const move = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const at = options.findIndex((o) => o.value === value);
    const next = (at + by + options.length) % options.length;
    onChange(options[next]!.value);
    const group = event.currentTarget as HTMLElement;
    group.querySelectorAll<HTMLElement>("[role=radio]")[next]?.focus();
  };
  return (
    <div class="field">
      <span class={classes("field-label", quiet && "visually-hidden")} aria-hidden="true">
        {label}
      </span>
      <div role="radiogroup" aria-label={label} class="segmented" data-control={control} onKeyDown={move}>
        {options.map((o) => (
          <button
            key={o.value}
            type="button"
            role="radio"
            aria-checked={o.value === value}
            data-value={o.value}
            tabIndex={o.value === value ? 0 : -1}
            onClick={() => onChange(o.value)}
          >
            {o.label}
          </button>
        ))}
      </div>
    </div>
  );
}

interface ToggleProps extends Named {
  label: string;
  value: boolean;
  onChange: (value: boolean) => void;
  hint?: string | undefined;
  disabled?: boolean;
}

/** On or off. */
export function Toggle({ control, label, value, onChange, hint, disabled }: ToggleProps) {
  return (
    <label class="toggle" title={hint}>
      <input
        type="checkbox"
        role="switch"
        aria-checked={value}
        data-control={control}
        checked={value}
        disabled={disabled}
        onChange={(e) => onChange(e.currentTarget.checked)}
      />
      <span class="toggle-track" aria-hidden="true" />
      <span>{label}</span>
    </label>
  );
}
