/** Light or dark: the system's choice until one is made here. */
import { computed, effect, signal } from "@preact/signals";

export type Choice = "system" | "light" | "dark";
export type Theme = "light" | "dark";

const KEY = "cllm.theme";

function stored(): Choice {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system"; // storage can be forbidden
  }
}

const query = matchMedia("(prefers-color-scheme: light)");
const motion = matchMedia("(prefers-reduced-motion: reduce)");
const system = signal<Theme>(query.matches ? "light" : "dark");
query.addEventListener("change", () => {
  system.value = query.matches ? "light" : "dark";
});

export const choice = signal<Choice>(stored());
export const theme = computed<Theme>(() => (choice.value === "system" ? system.value : choice.value));
export const reducedMotion = signal(motion.matches);
motion.addEventListener("change", () => {
  reducedMotion.value = motion.matches;
});

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  try {
    if (choice.value === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice.value);
  } catch {
    // the choice then lasts as long as the page
  }
});

/** The value of a custom property of the style sheet, for what is drawn on a canvas. */
export function token(name: string): string {
  void theme.value; // a signal's reader is told when the theme changes
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
