/** What the pointer and the keys do on a pane. */
import { get, isAbort, tell } from "../../api/client";
import { reducedMotion } from "../../state/theme";
import { folded, foldedPlace } from "./folded";
import { numberAt, placeOf } from "./inverse";
import { hovered, select } from "./model";
import { query, settings } from "./settings";
import { glideTo, panBy, paneSize, toPane, toWorld, view, zoomAt, zoomBy } from "./view";

let probe = new AbortController();

/** The number at a point of the pane, in CSS pixels. */
async function probeAt(px: number, py: number): Promise<{ n: string; x: number; y: number } | undefined> {
  const s = settings.peek();
  const [x, y] = toWorld(px, py);
  if (s.curve === "folded-clock") {
    const f = folded.peek();
    if (!f) return undefined;
    let best = -1;
    let near = 14;
    for (let i = 0; i < f.n.length; i++) {
      const [wx, wy] = foldedPlace(f, i, s.fold);
      const [qx, qy] = toPane(wx, wy);
      const far = Math.hypot(qx - px, qy - py);
      if (far < near) [best, near] = [i, far];
    }
    if (best < 0) return undefined;
    const [wx, wy] = foldedPlace(f, best, s.fold);
    return { n: String(f.n[best]), x: wx, y: wy };
  }
  const n = numberAt(s, x, y);
  if (n !== undefined) {
    const at = n >= 0 ? placeOf(s, n) : undefined;
    return at && { n: String(n), x: at[0], y: at[1] };
  }
  probe.abort();
  probe = new AbortController();
  const scale = view.peek().scale;
  const asked = { ...query.peek(), x, y, scale };
  const found = await get<{ n: string | null; x: number; y: number }>("/api/lattice/at", asked, probe.signal);
  return found.n === null ? undefined : { n: found.n, x: found.x, y: found.y };
}

export function listen(canvas: HTMLCanvasElement): () => void {
  const pointers = new Map<number, PointerEvent>();
  let moved = 0;
  let hoverAsked = 0;
  const where = (e: { clientX: number; clientY: number }): [number, number] => {
    const r = canvas.getBoundingClientRect();
    return [e.clientX - r.left, e.clientY - r.top];
  };
  const hover = (e: PointerEvent) => {
    cancelAnimationFrame(hoverAsked);
    hoverAsked = requestAnimationFrame(() => {
      probeAt(...where(e))
        .then((found) => {
          hovered.value = found;
        })
        .catch((error) => {
          if (!isAbort(error)) hovered.value = undefined;
        });
    });
  };
  const down = (e: PointerEvent) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
    pointers.set(e.pointerId, e);
    moved = 0;
  };
  const move = (e: PointerEvent) => {
    const last = pointers.get(e.pointerId);
    if (!last) {
      hover(e);
      return;
    }
    const dx = e.clientX - last.clientX;
    const dy = e.clientY - last.clientY;
    moved += Math.abs(dx) + Math.abs(dy);
    if (pointers.size === 2) {
      const other = [...pointers.values()].find((p) => p.pointerId !== e.pointerId)!;
      const before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
      const after = Math.hypot(e.clientX - other.clientX, e.clientY - other.clientY);
      const [mx, my] = where({
        clientX: (e.clientX + other.clientX) / 2,
        clientY: (e.clientY + other.clientY) / 2,
      });
      if (after > 0) zoomAt(before / after, mx, my);
      panBy(dx / 2, dy / 2);
    } else if (moved > 3) panBy(dx, dy);
    pointers.set(e.pointerId, e);
  };
  const up = (e: PointerEvent) => {
    const clicked = pointers.size === 1 && moved <= 3 && e.type === "pointerup";
    pointers.delete(e.pointerId);
    if (!clicked) return;
    probeAt(...where(e))
      .then((found) => found && select(found.n, false))
      .catch(tell);
  };
  const wheel = (e: WheelEvent) => {
    e.preventDefault();
    const lines = e.deltaMode === 1 ? 33 : 1;
    zoomAt(Math.exp(Math.max(-240, Math.min(240, e.deltaY * lines)) * 0.0022), ...where(e));
  };
  const twice = (e: MouseEvent) => {
    const [px, py] = where(e);
    const [x, y] = toWorld(px, py);
    const v = view.peek();
    const scale = v.scale / (e.shiftKey ? 0.25 : 4);
    const { width, height } = paneSize.peek();
    const target = { x: x - (px - width / 2) * scale, y: y - (height / 2 - py) * scale, scale };
    glideTo(target, reducedMotion.peek());
  };
  const leave = () => {
    cancelAnimationFrame(hoverAsked);
    hovered.value = undefined;
  };
  const key = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    const far = e.shiftKey ? 240 : 60;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => panBy(far, 0),
      ArrowRight: () => panBy(-far, 0),
      ArrowUp: () => panBy(0, far),
      ArrowDown: () => panBy(0, -far),
      "+": () => zoomBy(1 / 1.5),
      "=": () => zoomBy(1 / 1.5),
      "-": () => zoomBy(1.5),
      Enter: () => {
        const { width, height } = paneSize.peek();
        probeAt(width / 2, height / 2)
          .then((found) => found && select(found.n, false))
          .catch(tell);
      },
    };
    const action = moves[e.key];
    if (!action) return;
    e.preventDefault();
    action();
  };
  const all: [string, EventListener][] = [
    ["pointerdown", down as EventListener],
    ["pointermove", move as EventListener],
    ["pointerup", up as EventListener],
    ["pointercancel", up as EventListener],
    ["pointerleave", leave],
    ["dblclick", twice as EventListener],
    ["keydown", key as EventListener],
  ];
  for (const [name, listener] of all) canvas.addEventListener(name, listener);
  canvas.addEventListener("wheel", wheel, { passive: false });
  return () => {
    for (const [name, listener] of all) canvas.removeEventListener(name, listener);
    canvas.removeEventListener("wheel", wheel);
    cancelAnimationFrame(hoverAsked);
  };
}
