/** The scene on a 2-D canvas, from the back to the front: for browsers without WebGL2. */
import { type Scene, type Tint, turned } from "./space-model";

export type Rgb = [number, number, number];

export interface Look {
  matrix: number[];
  /** Device pixels a unit. */
  scale: number;
  colours: Record<"accent" | "cool" | "warm" | "quiet" | "ground", Rgb>;
}

export interface Renderer {
  draw(scene: Scene, look: Look): void;
  dispose(): void;
  readonly name: "webgl2" | "canvas";
}

/** Red, green and blue of a ball's or a stroke's colour. */
export function tinted(colour: Tint<keyof Look["colours"]>, look: Pick<Look, "colours">): Rgb {
  return typeof colour === "string" ? look.colours[colour] : colour;
}

const css = (c: Rgb, alpha = 1) => `rgb(${c[0]} ${c[1]} ${c[2]} / ${alpha})`;
const towards = (c: Rgb, d: Rgb, t: number): Rgb => [
  Math.round(c[0] + (d[0] - c[0]) * t),
  Math.round(c[1] + (d[1] - c[1]) * t),
  Math.round(c[2] + (d[2] - c[2]) * t),
];

export function flatRenderer(canvas: HTMLCanvasElement): Renderer {
  const g = canvas.getContext("2d")!;
  return {
    name: "canvas",
    dispose: () => {},
    draw(scene, { matrix, scale, colours }) {
      const { width, height } = canvas;
      g.setTransform(1, 0, 0, 1, 0, 0);
      g.fillStyle = css(colours.ground);
      g.fillRect(0, 0, width, height);
      g.setTransform(scale, 0, 0, -scale, width / 2, height / 2);
      const items: { z: number; draw: () => void }[] = [];
      for (const ball of scene.balls) {
        const [x, y, z] = turned(matrix, ball.at);
        const fog = Math.max(0, Math.min(0.6, 0.3 - (0.3 * z) / scene.reach));
        const colour = towards(tinted(ball.colour, { colours }), colours.ground, fog);
        items.push({
          z,
          draw: () => {
            const r = ball.radius;
            const shade = g.createRadialGradient(x - 0.35 * r, y + 0.4 * r, 0.05 * r, x, y, r);
            shade.addColorStop(0, css(towards(colour, [255, 255, 255], 0.5)));
            shade.addColorStop(0.45, css(colour));
            shade.addColorStop(1, css(towards(colour, [0, 0, 0], 0.5)));
            g.fillStyle = shade;
            g.beginPath();
            g.arc(x, y, r, 0, 7);
            g.fill();
          },
        });
      }
      for (const s of scene.strokes) {
        const a = turned(matrix, s.from);
        const b = turned(matrix, s.to);
        const alpha = s.wide < 1 ? 0.16 : 1;
        items.push({
          z: (a[2] + b[2]) / 2,
          draw: () => {
            g.strokeStyle = css(tinted(s.colour, { colours }), alpha);
            g.lineWidth = Math.max(1, s.wide) / scale;
            g.beginPath();
            g.moveTo(a[0], a[1]);
            g.lineTo(b[0], b[1]);
            g.stroke();
          },
        });
      }
      for (const face of scene.faces) {
        const corners = face.map((v) => turned(matrix, v));
        items.push({
          z: corners.reduce((sum, v) => sum + v[2], 0) / corners.length,
          draw: () => {
            g.fillStyle = css(colours.accent, 0.09);
            g.beginPath();
            for (const [x, y] of corners) g.lineTo(x, y);
            g.fill();
          },
        });
      }
      items.sort((a, b) => a.z - b.z);
      for (const item of items) item.draw();
    },
  };
}
