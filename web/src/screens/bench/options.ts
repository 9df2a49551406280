/** Options of a measurement: what the form holds, the words of the command line, how long it will take. */
import { duration } from "../train/words";
import type { Command, Option, Took, Value } from "./api";

export type Values = Record<string, Value | Value[]>;

function same(a: Value | Value[], b: Value | Value[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Only what differs from the command's own. */
export function changed(command: Command, values: Values): Values {
  const found: Values = {};
  for (const option of command.options) {
    const value = values[option.name];
    if (value !== undefined && value !== null && !same(value, option.default)) found[option.name] = value;
  }
  return found;
}

/** The words for those, as the server writes them. */
export function line(command: Command, values: Values): string[] {
  const differing = changed(command, values);
  return command.options.flatMap((option) => {
    const value = differing[option.name];
    if (value === undefined) return [];
    if (Array.isArray(value)) return value.map((item) => `${option.flag}=${item}`);
    if (typeof value === "boolean") return [value ? option.flag : `--no-${option.flag.slice(2)}`];
    return [`${option.flag}=${value}`];
  });
}

/** For a shell: quoted where it must be. */
export function quoted(words: readonly string[]): string {
  return words.map((w) => (/^[\w./=:,+-]+$/.test(w) ? w : `'${w.replaceAll("'", "'\\''")}'`)).join(" ");
}

/** A list typed as "1, 4, 16"; undefined where an item is not of the option's type. */
export function items(option: Option, typed: string): Value[] | undefined {
  const parts = typed
    .split(option.type === "str" || option.type === "path" ? /\s*,\s*/ : /[\s,]+/)
    .map((part) => part.trim())
    .filter(Boolean);
  if (option.type === "str" || option.type === "path") return parts;
  const numbers = parts.map(Number);
  const fits = (n: number) => (option.type === "int" ? Number.isInteger(n) : Number.isFinite(n));
  return numbers.every(fits) ? numbers : undefined;
}

/** How long a measurement takes, and how that is known. */
export function estimate(command: Command, words: readonly string[], waited: number): string {
  const key = JSON.stringify([...words].sort());
  const fits = (took: Took) => JSON.stringify([...took.options].sort()) === key;
  const here = command.times.find(fits);
  if (here) return `${duration(here.seconds)}, as it took here with these options.`;
  const other = command.times[0];
  if (other)
    return `Not timed here with these options; with ${other.options.length > 0 ? quoted(other.options) : "its own options"} it took ${duration(other.seconds)}.`;
  const own = words.length > 0 ? " With these it may take more or less." : "";
  if (command.usual === null)
    return `More than ${duration(waited)} with its own options on two cores; not timed here yet.${own}`;
  if (command.usual !== undefined)
    return `About ${duration(command.usual)} with its own options on two cores; not timed here yet.${own}`;
  return "Nobody has timed it here yet; the first time says how long it takes. It can be stopped.";
}
