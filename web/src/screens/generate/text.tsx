/** The written text: each token tinted by its surprise; the alternatives on hover, pinned by a click, to branch off. */
import { Component } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../controls";
import type { Alternative } from "./api";
import type { Column } from "./state";
import { halt, run } from "./state";
import { fork, type Piece, pathOf, tint, visible } from "./tree";

export function Text({ column }: { column: Column }) {
  const tree = column.tree.value;
  const path = pathOf(tree);
  const box = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState<number>();
  const [pinned, setPinned] = useState(false);
  const [focus, setFocus] = useState(0);
  const current = tree.current;
  // with the drawing itself: an effect behind it could undo a click that came between
  useLayoutEffect(() => {
    setPinned(false);
    setAt(undefined);
  }, [current, path.length === 0]);

  // follow the end while it is written, unless the reader has scrolled up
  const follow = useRef(true);
  useLayoutEffect(() => {
    const element = box.current;
    if (element && follow.current && column.busy.value) element.scrollTop = element.scrollHeight;
  }, [path.length]);

  const place = (target: EventTarget | null): number | undefined => {
    const found = (target as HTMLElement | null)?.closest?.("[data-place]");
    return found ? Number((found as HTMLElement).dataset.place) : undefined;
  };
  const pin = (index: number) => {
    setAt(index);
    setPinned(true);
    setFocus(index);
  };
  const key = (event: KeyboardEvent) => {
    if ((event.target as HTMLElement).closest(".alternatives")) {
      if (event.key === "Escape") {
        event.preventDefault();
        setPinned(false);
        tokenAt(box.current, focus)?.focus();
      }
      return;
    }
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by) {
      const next = Math.max(0, Math.min(path.length - 1, focus + by));
      event.preventDefault();
      setFocus(next);
      if (!pinned) setAt(next);
      tokenAt(box.current, next)?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pin(focus);
    } else if (event.key === "Escape") {
      setPinned(false);
      setAt(undefined);
    }
  };
  const take = (alternative: Alternative) => {
    if (at === undefined) return;
    halt(column);
    const next = fork(column.tree.peek(), at, alternative);
    const known = next.branches.length === tree.branches.length;
    column.tree.value = next;
    setPinned(false);
    setAt(undefined);
    if (!known) void run(column);
  };
  const why = tree.branches.find((b) => b.id === current)?.end;
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the tokens in it are buttons, it only hands their events on
    // biome-ignore lint/a11y/useKeyWithMouseEvents: the arrow keys do the same
    <div
      class="writing"
      ref={box}
      onScroll={(e) => {
        const el = e.currentTarget;
        follow.current = el.scrollHeight - el.scrollTop - el.clientHeight < 40;
        if (at !== undefined && !pinned) setAt(undefined);
      }}
      onMouseOver={(e) => {
        if (!pinned) setAt(place(e.target));
      }}
      onMouseLeave={() => !pinned && setAt(undefined)}
      onClick={(e) => {
        const found = place(e.target);
        if (found !== undefined) pin(found);
        else if (!(e.target as HTMLElement).closest(".alternatives")) {
          setPinned(false);
          setAt(undefined);
        }
      }}
      onKeyDown={key}
    >
      <p class="written" aria-live="off">
        <span class="prompt-text">{path.length > 0 || column.busy.value ? column.prompt.value : ""}</span>
        {Array.from({ length: Math.ceil(path.length / CHUNK) }, (_, n) => (
          <Chunk
            key={n}
            branch={current}
            from={n * CHUNK}
            path={path}
            at={at}
            focus={Math.min(focus, path.length - 1)}
          />
        ))}
        {column.busy.value === "writing" && <span class="caret" aria-hidden="true" />}
      </p>
      {column.busy.value === "loading" && (
        <p class="writing-note" role="status">
          Loading {column.run.value.replace(/^runs\//, "")} …
        </p>
      )}
      {column.error.value && (
        <p class="field-error" role="alert">
          {column.error.value}
        </p>
      )}
      {why && <p class="writing-note">{why}</p>}
      {at !== undefined && path[at] && (
        <Alternatives
          key={`${at} ${pinned}`}
          box={box}
          at={at}
          token={path[at]}
          pinned={pinned}
          onTake={take}
          onClose={() => setPinned(false)}
        />
      )}
    </div>
  );
}

/** Tokens that are drawn together: a chunk that is full and holds neither the mark nor the focus stays as it is, so a
 * long text costs no more for each new token than a short one. */
const CHUNK = 200;

interface ChunkProps {
  branch: number;
  from: number;
  path: readonly Piece[];
  at: number | undefined;
  focus: number;
}

class Chunk extends Component<ChunkProps> {
  override shouldComponentUpdate(next: ChunkProps): boolean {
    const now = this.props;
    const end = next.from + CHUNK;
    const inside = (place: number | undefined) => place !== undefined && place >= next.from && place < end;
    return (
      next.branch !== now.branch ||
      next.path.slice(next.from, end).length !== now.path.slice(now.from, end).length ||
      next.path[next.from] !== now.path[now.from] ||
      next.path[Math.min(end, next.path.length) - 1] !== now.path[Math.min(end, now.path.length) - 1] ||
      (next.at !== now.at && (inside(next.at) || inside(now.at))) ||
      (next.focus !== now.focus && (inside(next.focus) || inside(now.focus)))
    );
  }

  override render({ from, path, at, focus }: ChunkProps) {
    return path.slice(from, from + CHUNK).map((token, n) => {
      const i = from + n;
      return (
        <span
          key={i}
          role="button"
          data-control="generate.token"
          data-place={i}
          tabIndex={i === focus ? 0 : -1}
          class={`token t${tint(token.nats)} ${token.forced ? "forced" : ""} ${at === i ? "at" : ""}`}
          aria-label={`${visible(token.text)}, ${token.nats.toFixed(1)} nats`}
        >
          {token.text}
        </span>
      );
    });
  }
}

function tokenAt(box: HTMLElement | null, place: number): HTMLElement | null {
  return box?.querySelector<HTMLElement>(`[data-place="${place}"]`) ?? null;
}

interface AlternativesProps {
  box: { current: HTMLDivElement | null };
  at: number;
  token: Piece;
  pinned: boolean;
  onTake: (alternative: Alternative) => void;
  onClose: () => void;
}

function Alternatives({ box, at, token, pinned, onTake, onClose }: AlternativesProps) {
  const card = useRef<HTMLDivElement>(null);
  const [spot, setSpot] = useState<{ left: number; top: number }>();
  useLayoutEffect(() => {
    const host = box.current;
    const word = tokenAt(host, at);
    const own = card.current;
    if (!host || !word || !own) return;
    // in the window, not in the text: it may stand over whatever is below
    const mark = word.getClientRects()[0] ?? word.getBoundingClientRect();
    const below = mark.bottom + 6;
    const above = mark.top - own.offsetHeight - 6;
    const fits = below + own.offsetHeight + 8 < innerHeight || above < 8;
    setSpot({
      left: Math.max(6, Math.min(mark.left - 8, innerWidth - own.offsetWidth - 8)),
      top: Math.max(8, fits ? Math.min(below, innerHeight - own.offsetHeight - 8) : above),
    });
  }, [at, pinned]);
  const placed = spot !== undefined;
  useLayoutEffect(() => {
    // the first that can be taken; only what is shown can have the focus
    if (pinned && placed)
      card.current?.querySelector<HTMLElement>(".alternative:enabled")?.focus({ preventScroll: true });
  }, [pinned, placed]);
  const most = Math.max(...token.top.map(([, , p, q]) => Math.max(p, q)), 1e-9);
  const rank = token.top.findIndex(([id]) => id === token.id);
  const step = (event: KeyboardEvent) => {
    const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    const all = [...card.current!.querySelectorAll<HTMLElement>(".alternative:enabled")];
    all[all.indexOf(document.activeElement as HTMLElement) + by]?.focus();
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys move between the buttons in it
    // biome-ignore lint/a11y/useAriaPropsSupportedByRole: both roles take a label
    <div
      ref={card}
      class={`alternatives ${pinned ? "pinned" : ""}`}
      style={spot ? { left: `${spot.left}px`, top: `${spot.top}px` } : { visibility: "hidden" }}
      role={pinned ? "dialog" : "tooltip"}
      aria-label="Alternatives"
      onKeyDown={step}
    >
      <p class="alternatives-head">
        <b class="mono">{visible(token.text)}</b>
        <span>
          {token.nats.toFixed(2)} nats{token.forced ? ", chosen by you" : ""}
        </span>
        <span class="quiet">{rank < 0 ? "beyond the first twelve" : `${ordinal(rank + 1)} likeliest`}</span>
        {pinned && (
          <Button control="generate.alternatives-close" kind="quiet" title="Close (Escape)" onClick={onClose}>
            ✕
          </Button>
        )}
      </p>
      <ul>
        {token.top.map((one) => (
          <li key={one[0]}>
            <button
              type="button"
              class={`alternative ${one[0] === token.id ? "chosen" : ""} ${one[3] === 0 ? "removed" : ""}`}
              data-control="generate.alternative"
              tabIndex={pinned ? 0 : -1}
              disabled={!pinned || one[0] === token.id}
              title={
                one[3] === 0 ? "The sampling settings removed it; you can still take it" : "Branch off here"
              }
              onClick={() => onTake(one)}
            >
              <Bars p={one[2]} q={one[3]} most={most} />
              <span class="mono alternative-text">{visible(one[1])}</span>
              <span class="mono quiet">{percent(one[2])}</span>
              <span class="mono">{percent(one[3])}</span>
            </button>
          </li>
        ))}
      </ul>
      <p class="quiet alternatives-foot">
        {pinned ? "Choose one to branch off." : "Click to branch off."} Before and after the filters, which
        left {token.kept}.
      </p>
    </div>
  );
}

function ordinal(n: number): string {
  return n === 1 ? "the" : n === 2 ? "2nd" : n === 3 ? "3rd" : `${n}th`;
}

/** Two bars: faint before the filters, full behind them. */
export function Bars({ p, q, most }: { p: number; q: number; most: number }) {
  return (
    <span class="bars" aria-hidden="true">
      <span class="bar-p" style={{ width: `${(p / most) * 100}%` }} />
      <span class="bar-q" style={{ width: `${(q / most) * 100}%` }} />
    </span>
  );
}

export function percent(value: number): string {
  if (value === 0) return "–";
  if (value >= 0.0995) return `${(value * 100).toFixed(0)}\u202f%`;
  return value >= 0.001 ? `${(value * 100).toFixed(1)}\u202f%` : "<0.1\u202f%";
}
