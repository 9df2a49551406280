/** The scene in WebGL2: balls as squares whose pixels are met by the ray (true spheres, which cut each other rightly),
 * strokes as ribbons that face the eye, faces last and see-through. */
import { type Look, type Renderer, type Rgb, tinted } from "./space-flat";
import { type Scene, turned } from "./space-model";

const BALL = `#version 300 es
layout(location=0) in vec2 corner; layout(location=1) in vec4 ball; layout(location=2) in vec3 tint;
uniform vec2 unit; uniform float depth; out vec2 at; out vec3 colour; out float z; out float r;
void main() {
  at = corner; colour = tint; z = ball.z; r = ball.w;
  gl_Position = vec4((ball.xy + corner * ball.w) * unit, -ball.z * depth, 1.0);
}`;
const BALL_PIXEL = `#version 300 es
precision highp float; in vec2 at; in vec3 colour; in float z; in float r;
uniform float depth; uniform vec3 ground; uniform float reach; out vec4 pixel;
void main() {
  float q = dot(at, at); if (q > 1.0) discard;
  vec3 normal = vec3(at, sqrt(1.0 - q)); float front = z + r * normal.z;
  gl_FragDepth = 0.5 - 0.5 * front * depth;
  vec3 light = normalize(vec3(-0.4, 0.55, 0.75));
  float lit = 0.42 + 0.58 * max(dot(normal, light), 0.0);
  float shine = pow(max(dot(reflect(-light, normal), vec3(0.0, 0.0, 1.0)), 0.0), 28.0) * 0.35;
  float fog = clamp(0.28 - 0.3 * z / reach, 0.0, 0.6);
  float edge = smoothstep(1.0, 1.0 - 2.5 * fwidth(q), q);
  pixel = vec4(mix(colour * lit + shine, ground, fog), edge);
}`;
const FLAT = `#version 300 es
layout(location=0) in vec3 at; layout(location=1) in vec4 tint; uniform vec2 unit; uniform float depth; out vec4 colour;
void main() { colour = tint; gl_Position = vec4(at.xy * unit, -at.z * depth, 1.0); }`;
const FLAT_PIXEL = `#version 300 es
precision highp float; in vec4 colour; out vec4 pixel; void main() { pixel = colour; }`;

function program(gl: WebGL2RenderingContext, vertex: string, pixel: string): WebGLProgram {
  const made = gl.createProgram()!;
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, vertex],
    [gl.FRAGMENT_SHADER, pixel],
  ] as const) {
    const shader = gl.createShader(kind)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) ?? "shader");
  return made;
}

const unitColour = (c: Rgb): Rgb => [c[0] / 255, c[1] / 255, c[2] / 255];

/** undefined where there is no WebGL2. */
export function glRenderer(canvas: HTMLCanvasElement): Renderer | undefined {
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
  if (!gl) return undefined;
  const balls = program(gl, BALL, BALL_PIXEL);
  const flats = program(gl, FLAT, FLAT_PIXEL);
  const corners = gl.createBuffer()!;
  const instances = gl.createBuffer()!;
  const flat = gl.createBuffer()!;
  const ballArray = gl.createVertexArray()!;
  const flatArray = gl.createVertexArray()!;
  gl.bindVertexArray(ballArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, corners);
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  gl.bindBuffer(gl.ARRAY_BUFFER, instances);
  for (const [where, size, from] of [
    [1, 4, 0],
    [2, 3, 16],
  ] as const) {
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, size, gl.FLOAT, false, 28, from);
    gl.vertexAttribDivisor(where, 1);
  }
  gl.bindVertexArray(flatArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, flat);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 28, 0);
  gl.enableVertexAttribArray(1);
  gl.vertexAttribPointer(1, 4, gl.FLOAT, false, 28, 12);

  const common = (p: WebGLProgram, look: Look, scene: Scene) => {
    gl.useProgram(p);
    gl.uniform2f(
      gl.getUniformLocation(p, "unit"),
      (2 * look.scale) / canvas.width,
      (2 * look.scale) / canvas.height,
    );
    gl.uniform1f(gl.getUniformLocation(p, "depth"), 0.9 / scene.reach);
  };
  const drawFlat = (data: number[], look: Look, scene: Scene) => {
    if (!data.length) return;
    common(flats, look, scene);
    gl.bindVertexArray(flatArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, flat);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(data), gl.DYNAMIC_DRAW);
    gl.drawArrays(gl.TRIANGLES, 0, data.length / 7);
  };
  return {
    name: "webgl2",
    dispose() {
      for (const b of [corners, instances, flat]) gl.deleteBuffer(b);
      gl.deleteProgram(balls);
      gl.deleteProgram(flats);
    },
    draw(scene, look) {
      const ground = unitColour(look.colours.ground);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(...ground, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      const thin = scene.strokes.filter((s) => s.wide < 1);
      gl.depthMask(false);
      drawFlat(ribbons(thin, look, 0.13), look, scene);
      gl.depthMask(true);
      const data: number[] = [];
      for (const b of scene.balls)
        data.push(...turned(look.matrix, b.at), b.radius, ...unitColour(tinted(b.colour, look)));
      common(balls, look, scene);
      gl.uniform3f(gl.getUniformLocation(balls, "ground"), ...ground);
      gl.uniform1f(gl.getUniformLocation(balls, "reach"), scene.reach);
      gl.bindVertexArray(ballArray);
      gl.bindBuffer(gl.ARRAY_BUFFER, instances);
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(data), gl.DYNAMIC_DRAW);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, scene.balls.length);
      drawFlat(
        ribbons(
          scene.strokes.filter((s) => s.wide >= 1),
          look,
          1,
        ),
        look,
        scene,
      );
      gl.depthMask(false);
      drawFlat(fans(scene, look), look, scene);
      gl.depthMask(true);
    },
  };
}

function ribbons(strokes: Scene["strokes"], look: Look, alpha: number): number[] {
  const data: number[] = [];
  for (const s of strokes) {
    const a = turned(look.matrix, s.from);
    const b = turned(look.matrix, s.to);
    const long = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    const half = (0.5 * Math.max(1, s.wide)) / look.scale / long;
    const [nx, ny] = [-(b[1] - a[1]) * half, (b[0] - a[0]) * half];
    const tint = [...unitColour(tinted(s.colour, look)), alpha];
    const quad = [
      [a[0] + nx, a[1] + ny, a[2]],
      [a[0] - nx, a[1] - ny, a[2]],
      [b[0] + nx, b[1] + ny, b[2]],
      [b[0] - nx, b[1] - ny, b[2]],
    ];
    for (const i of [0, 1, 2, 2, 1, 3]) data.push(...quad[i]!, ...tint);
  }
  return data;
}

function fans(scene: Scene, look: Look): number[] {
  const data: number[] = [];
  const tint = [...unitColour(look.colours.accent), 0.1];
  for (const face of scene.faces) {
    const c = face.map((v) => turned(look.matrix, v));
    for (let i = 1; i + 1 < c.length; i++)
      for (const v of [c[0]!, c[i]!, c[i + 1]!]) data.push(...v, ...tint);
  }
  return data;
}
