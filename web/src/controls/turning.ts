/** A picture in space that is turned and zoomed by keys and wheel; dragging is its own matter. */

export interface Turning {
  /** By so many pixels of a drag. */
  turn: (x: number, y: number) => void;
  /** Above 1: closer. */
  zoom: (by: number) => void;
}

/** What a key does to the picture; other keys go on. */
export function turnByKey(e: KeyboardEvent, { turn, zoom }: Turning): void {
  if (e.ctrlKey || e.altKey || e.metaKey) return;
  const actions: Record<string, () => void> = {
    ArrowLeft: () => turn(-12, 0),
    ArrowRight: () => turn(12, 0),
    ArrowUp: () => turn(0, -12),
    ArrowDown: () => turn(0, 12),
    "+": () => zoom(1.25),
    "=": () => zoom(1.25),
    "-": () => zoom(0.8),
  };
  const action = actions[e.key];
  if (!action) return;
  e.preventDefault();
  e.stopPropagation();
  action();
}

/** What a turn of the wheel does to it (a listener that is not passive). */
export function zoomByWheel(e: WheelEvent, { zoom }: Turning): void {
  e.preventDefault();
  zoom(Math.exp(-Math.max(-240, Math.min(240, e.deltaY)) * 0.002));
}
