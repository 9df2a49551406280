/** The address after `#` holds the screen and its state: `#lattice?curve=ulam&x=0&y=0`. No router: one signal. */
import { signal } from "@preact/signals";

export interface Route {
  screen: string;
  params: Readonly<Record<string, string>>;
}

export const DEFAULT_SCREEN = "lattice";

export function parseHash(hash: string): Route {
  const text = hash.replace(/^#\/?/, "");
  const cut = text.indexOf("?");
  const screen = (cut < 0 ? text : text.slice(0, cut)) || DEFAULT_SCREEN;
  const params = cut < 0 ? {} : Object.fromEntries(new URLSearchParams(text.slice(cut + 1)));
  return { screen, params };
}

export function formatHash(screen: string, params: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams(params).toString();
  return `#${screen}${query ? `?${query}` : ""}`;
}

export const route = signal<Route>(parseHash(typeof location === "undefined" ? "" : location.hash));

/** The address that the pages know of. */
let known = typeof location === "undefined" ? "" : location.hash;

if (typeof window !== "undefined") {
  window.addEventListener("hashchange", () => {
    known = location.hash;
    route.value = parseHash(location.hash);
  });
}

/** Open a screen; a new entry in the browser's history. */
export function go(screen: string, params: Readonly<Record<string, string>> = {}): void {
  location.hash = formatHash(screen, params);
}

/** Put the state of the open screen into the address, without a history entry and without telling `route`. Not over a
 * link that somebody has just followed and no screen has seen yet. */
export function keep(screen: string, params: Readonly<Record<string, string>>): void {
  const hash = formatHash(screen, params);
  if (location.hash === hash || location.hash !== known) return;
  history.replaceState(null, "", hash);
  known = location.hash;
}
