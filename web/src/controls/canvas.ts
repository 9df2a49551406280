/** Gives the canvas as many pixels as the screen has where it stands. Returns the size in CSS pixels. */
export function fitToBox(canvas: HTMLCanvasElement): { width: number; height: number } {
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
  return { width, height };
}
