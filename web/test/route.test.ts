import { afterEach, beforeEach, expect, test, vi } from "vitest";

let changed: () => void;

beforeEach(() => {
  const location = { hash: "#lattice" };
  vi.resetModules();
  vi.stubGlobal("location", location);
  vi.stubGlobal("history", {
    replaceState: (_: unknown, __: string, hash: string) => {
      location.hash = hash;
    },
  });
  vi.stubGlobal("window", {
    addEventListener: (_: string, listener: () => void) => {
      changed = listener;
    },
  });
});
afterEach(() => vi.unstubAllGlobals());

test("the state of a screen goes into the address", async () => {
  const { keep, route } = await import("../src/state/route");
  keep("lattice", { w: "201" });
  expect(location.hash).toBe("#lattice?w=201");
  keep("lattice", { w: "100" });
  expect(location.hash).toBe("#lattice?w=100");
  expect(route.value.params).toEqual({});
});

test("a link that was followed is not written over before the page has seen it", async () => {
  const { keep, route } = await import("../src/state/route");
  location.hash = "#lattice?x=4&w=100";
  keep("lattice", { w: "201" });
  expect(location.hash).toBe("#lattice?x=4&w=100");
  changed();
  expect(route.value.params).toEqual({ x: "4", w: "100" });
  keep("lattice", { x: "5", w: "100" });
  expect(location.hash).toBe("#lattice?x=5&w=100");
});
