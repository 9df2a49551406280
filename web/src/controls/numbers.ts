/** 12, 1_000, 1e-3, 10^6 as a number; undefined where it is none. */
export function readNumber(text: string): number | undefined {
  const plain = text
    .trim()
    .replace(/[_\s,]/g, "")
    .replace("−", "-");
  const power = /^(-?\d+(?:\.\d+)?)\^(-?\d+)$/.exec(plain);
  const value = power ? Number(power[1]) ** Number(power[2]) : plain === "" ? Number.NaN : Number(plain);
  return Number.isFinite(value) ? value : undefined;
}
