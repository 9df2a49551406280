/** The Lattice screen: a curve of numbers in the middle, its settings at the left, one number at the right. */
import { effect, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get, tell } from "../../api/client";
import { Button } from "../../controls";
import { useCommands } from "../../state/commands";
import { keep, route } from "../../state/route";
import { isBusy } from "./busy";
import { Inspector, plus, shownNumber, step } from "./inspector";
import { about, curveOf, drawLine, facts, goHome, hovered, restoreView, select, waiting } from "./model";
import { chooseCurve, FOLDED_COUNT, Panel } from "./panel";
import { Plane } from "./plane";
import { change, DEFAULTS, naturalStart, read, settings, write } from "./settings";
import { Space } from "./space";
import { paneSize, view, zoomBy } from "./view";

let timer = 0;
let opened = "";
/** The link whose picture this is. */
const link = signal("");

/** Take the settings from the link. */
function adopt(): void {
  const params = route.peek().params;
  opened = JSON.stringify(params);
  link.value = "";
  const made = read(params);
  if (!("start" in params)) made.start = naturalStart(made.curve);
  if (!("count" in params) && made.curve === "folded-clock") made.count = FOLDED_COUNT;
  settings.value = made;
  if (!made.n) facts.value = undefined;
}

/** Show the place and the number that the settings name, once the panes have their size. */
function arrive(): void {
  const made = settings.peek();
  if (made.w > 0) restoreView(made);
  else void goHome();
  if (made.n) void select(made.n, made.w === 0);
  void drawLine();
  link.value = location.hash || "#"; // never empty once arrived
}

/** The address follows the picture, a moment behind it. */
function follow(): () => void {
  return effect(() => {
    const s = settings.value;
    const v = view.value;
    const { width } = paneSize.value;
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const plane = s.curve !== "space";
      const size = plane ? v.scale * width : 0;
      const round = (x: number) =>
        plane ? Number((Math.round(x / (v.scale * 0.05)) * v.scale * 0.05).toPrecision(14)) : 0;
      const held = { ...s, x: round(v.x), y: round(v.y), w: Number(size.toPrecision(5)) };
      const params = write(held);
      if (held.start === naturalStart(s.curve)) delete params.start;
      opened = JSON.stringify(params);
      keep("lattice", params);
    }, 200);
  });
}

export default function Lattice() {
  useMemo(adopt, []); // with the first drawing: what is changed from then on is not taken back
  useEffect(() => {
    get<typeof about.value>("/api/lattice")
      .then((found) => {
        about.value = found;
      })
      .catch(tell);
    // the panes have their size once they have been laid out
    let stop = () => {};
    const first = requestAnimationFrame(() => {
      arrive();
      stop = follow();
    });
    const stopRoute = route.subscribe((r) => {
      if (r.screen !== "lattice") return;
      if (JSON.stringify(r.params) === opened) {
        if (link.peek()) link.value = location.hash;
        return;
      }
      adopt();
      arrive();
    });
    return () => {
      cancelAnimationFrame(first);
      clearTimeout(timer);
      stop();
      stopRoute();
      opened = "";
    };
  }, []);
  useCommands("lattice", commands, [about.value]);
  const space = settings.value.curve === "space";
  return (
    <div class={space ? "lattice lattice-in-space" : "lattice"} aria-busy={isBusy} data-link={link}>
      <Panel />
      <section class="lattice-stage" aria-label="Picture">
        {space ? (
          <Space />
        ) : (
          <>
            <Plane />
            <Status />
            <div class="zoom">
              <Button control="lattice.zoom-in" title="Closer (+)" onClick={() => zoomBy(1 / 2)}>
                +
              </Button>
              <Button control="lattice.zoom-out" title="Farther (−)" onClick={() => zoomBy(2)}>
                −
              </Button>
              <Button control="lattice.home" title="The whole (0)" onClick={() => void goHome()}>
                ⌂
              </Button>
            </div>
          </>
        )}
      </section>
      {!space && <Inspector />}
    </div>
  );
}

function Status() {
  const at = hovered.value;
  const s = settings.value;
  const v = view.value;
  const size = v.scale * paneSize.value.width;
  const wide =
    size >= 0.01 && size < 1e6 ? Number(size.toPrecision(4)).toLocaleString("en") : size.toExponential(2);
  return (
    <p class="lattice-status" aria-live="off">
      <span class="mono">
        {at ? `n = ${Number(at.n).toLocaleString("en")}` : (curveOf(s)?.title ?? "Folded clock")}
      </span>
      <span class="quiet">{wide} wide</span>
      {v.scale > 1 && ["cells", "sectors", "dots"].includes(curveOf(s)?.kind ?? "") && (
        <span class="quiet">several numbers a pixel: their mean</span>
      )}
      {waiting.value > 0 && <span class="quiet">{waiting.value} tiles to come</span>}
    </p>
  );
}

function commands() {
  const stepBy = (by: bigint) => () => {
    if (facts.peek()) step(plus(shownNumber(), by));
  };
  const focus = () => document.querySelector<HTMLInputElement>("[data-control='lattice.jump']")?.select();
  const group = "Lattice";
  return [
    { id: "lattice.jump", group, title: "Go to a number", keys: "g", run: focus },
    { id: "lattice.home", group, title: "Show the whole", keys: "0", run: () => void goHome() },
    { id: "lattice.in", group, title: "Closer", keys: "+", run: () => zoomBy(1 / 2) },
    { id: "lattice.out", group, title: "Farther", keys: "-", run: () => zoomBy(2) },
    { id: "lattice.less", group, title: "One less", keys: "[", run: stepBy(-1n) },
    { id: "lattice.more", group, title: "One more", keys: "]", run: stepBy(1n) },
    {
      id: "lattice.previous",
      group,
      title: "Previous prime",
      keys: ",",
      run: () => step(facts.peek()?.previous),
    },
    { id: "lattice.next", group, title: "Next prime", keys: ".", run: () => step(facts.peek()?.next) },
    {
      id: "lattice.euler",
      group,
      title: "Draw Euler's n² + n + 41",
      run: () => {
        change({ line: "1 1 41", t: 0 });
        void drawLine();
      },
    },
    {
      id: "lattice.random",
      group,
      title: "Random model beside the primes",
      keys: "r",
      run: () => change({ null: settings.peek().null === "off" ? "all" : "off" }),
    },
    {
      id: "lattice.reset",
      group,
      title: "Start afresh",
      run: () => {
        settings.value = { ...DEFAULTS };
        void select("", false);
        void goHome();
        void drawLine();
      },
    },
    ...(about.value?.curves ?? []).map((c) => ({
      id: `lattice.curve.${c.name}`,
      group: "Curve",
      title: c.title,
      run: () => chooseCurve(c.name),
    })),
    {
      id: "lattice.curve.folded",
      group: "Curve",
      title: "Folded clock",
      run: () => chooseCurve("folded-clock"),
    },
    { id: "lattice.curve.space", group: "Curve", title: "Lattice in space", run: () => chooseCurve("space") },
  ];
}
