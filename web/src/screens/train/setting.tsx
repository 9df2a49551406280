/** One setting of a run as a field, by its kind. */
import { NumberField, Select, TextField, Toggle } from "../../controls";
import type { Setting } from "./api";
import { say, settingOf, values } from "./draft";

interface SettingFieldProps {
  setting: Setting;
  label?: string;
  error?: string | undefined;
  /** A name of its own for the controls that the form always shows. */
  control?: string;
}

function plain(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.join(", ");
  return String(value);
}

export function SettingField({ setting, label, error, control = "train.setting" }: SettingFieldProps) {
  const { key, kind, low, high, choices } = setting;
  const value = settingOf(key);
  const hint = setting.help || undefined;
  const common = { control, label: label ?? key, hint: label ? undefined : hint };
  if (kind === "switch") return <Toggle {...common} value={value === true} onChange={(v) => say(key, v)} />;
  if (kind === "choice")
    return (
      <Select
        {...common}
        error={error}
        value={plain(value)}
        options={choices.map((c) => ({ value: c, label: c }))}
        onChange={(v) => say(key, v)}
      />
    );
  if ((kind === "whole" || kind === "number") && !setting.optional && typeof value === "number")
    return (
      <NumberField
        {...common}
        hint={error ?? common.hint}
        value={value}
        whole={kind === "whole"}
        step={kind === "whole" ? 1 : stepOf(value)}
        {...(low === null ? {} : { min: low })}
        {...(high === null ? {} : { max: high })}
        onChange={(v) => say(key, v)}
      />
    );
  const take = (text: string) => {
    if (text.trim() === "") return say(key, undefined);
    if (kind === "list")
      return say(
        key,
        text.split(",").map((t) => asNumber(t)),
      );
    if (kind === "text") return say(key, text.trim());
    return say(key, asNumber(text));
  };
  return (
    <TextField
      {...common}
      mono
      error={error}
      placeholder={setting.optional ? "left to the training" : plain(setting.default)}
      value={plain(values.value[key] ?? (setting.optional ? undefined : value))}
      onChange={take}
    />
  );
}

/** A number where it is one; else the text, which the server's check explains. */
function asNumber(text: string): number | string {
  const clean = text.trim().replace(/[_\u2009\u202f]/g, "");
  const value = Number(clean);
  return clean !== "" && Number.isFinite(value) ? value : text.trim();
}

/** Arrow keys move a number by about a tenth of it. */
function stepOf(value: number): number {
  return value === 0 ? 0.1 : 10 ** (Math.floor(Math.log10(Math.abs(value))) - 1);
}
