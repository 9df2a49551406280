// @vitest-environment happy-dom
/** Fields under somebody quick: what was typed is told, whatever is drawn or comes in the meantime. */
import { h, render } from "preact";
import { beforeEach, describe, expect, it } from "vitest";
import { NumberField, TextField } from "../src/controls/fields";

let host: HTMLElement;
let told: unknown[];
beforeEach(() => {
  host = document.createElement("div");
  document.body.replaceChildren(host);
  told = [];
});

const onChange = (value: unknown) => {
  told.push(value);
};
const number = (value: number) => h(NumberField, { control: "t", label: "t", value, onChange });
const text = (value: string, live = false) =>
  h(TextField, { control: "t", label: "t", value, live, onChange });
const field = () => host.querySelector("input")!;
const drawn = () => new Promise((done) => setTimeout(done)); // Preact draws in a microtask
const effects = () => new Promise((done) => setTimeout(done, 150)); // and runs effects after a frame

function type(value: string): void {
  field().value = value;
  field().dispatchEvent(new Event("input", { bubbles: true }));
}
function press(key: string): void {
  field().dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

describe.each([
  ["a number", (v: string) => number(Number(v)), (v: string): unknown => Number(v)],
  ["a text", (v: string) => text(v), (v: string): unknown => v],
])("%s", (_, made, of) => {
  it("typed before the effects of the first drawing have run is kept", async () => {
    render(made("0"), host);
    type("4");
    await drawn();
    expect(field().value).toBe("4");
    await effects();
    expect(field().value).toBe("4");
    press("Enter");
    expect(told).toEqual([of("4")]);
  });

  it("typed and told in one go, with nothing drawn between", () => {
    render(made("0"), host);
    type("4");
    press("Enter");
    expect(told).toEqual([of("4")]);
  });

  it("is not taken away by a value that comes while it is typed", async () => {
    render(made("0"), host);
    type("4");
    render(made("7"), host);
    await effects();
    expect(field().value).toBe("4");
    press("Enter");
    expect(told).toEqual([of("4")]);
  });

  it("follows its owner otherwise, and after it has told", async () => {
    render(made("0"), host);
    render(made("7"), host);
    expect(field().value).toBe("7");
    type("4");
    press("Enter");
    render(made("4"), host);
    render(made("9"), host);
    await effects();
    expect(field().value).toBe("9");
  });

  it("is given back by Escape, to the newest value", async () => {
    render(made("0"), host);
    type("4");
    render(made("7"), host);
    press("Escape");
    await drawn();
    expect(field().value).toBe("7");
    field().dispatchEvent(new Event("blur"));
    expect(told).toEqual([]);
  });

  it("is told once, by Enter or by leaving", async () => {
    render(made("0"), host);
    type("4");
    press("Enter");
    field().dispatchEvent(new Event("blur"));
    expect(told).toEqual([of("4")]);
    type("5");
    field().dispatchEvent(new Event("blur"));
    expect(told).toEqual([of("4"), of("5")]);
  });
});

describe("a number", () => {
  it("says what is wrong until it is changed", async () => {
    render(number(3), host);
    type("x");
    press("Enter");
    await drawn();
    expect(host.textContent).toContain("Not a number");
    expect(told).toEqual([]);
    type("4");
    await drawn();
    expect(host.textContent).not.toContain("Not a number");
    press("Enter");
    expect(told).toEqual([4]);
  });

  it("is stepped from what is typed", () => {
    render(number(3), host);
    type("10");
    press("ArrowUp");
    press("ArrowUp");
    expect(told).toEqual([11, 12]);
  });
});

describe("a live text", () => {
  it("is told on every key and follows its owner", async () => {
    render(text("", true), host);
    type("a");
    type("ab");
    expect(told).toEqual(["a", "ab"]);
    render(text("ab", true), host);
    render(text("", true), host); // emptied by its owner
    expect(field().value).toBe("");
  });
});
