import { NumberField, Section, Select, Slider, TextField, Toggle } from "../../controls";
import { change, settings } from "./settings";
import { space } from "./space-model";

const KINDS = [
  { value: "cubic", label: "Simple cubic ℤ³" },
  { value: "FCC", label: "Face-centred cubic (D₃)" },
  { value: "BCC", label: "Body-centred cubic (D₃*)" },
  { value: "A2", label: "Hexagonal, plane (A₂)" },
  { value: "E8", label: "Slice of E₈" },
  { value: "E8-roots", label: "E₈: the 240 shortest vectors" },
  { value: "own", label: "Own basis" },
];

export function SpacePanel() {
  const s = settings.value;
  const f = space.value;
  const rows = s.rows.split(" ").map(Number);
  const basis = s.basis.split(" ").map(Number);
  return (
    <>
      <Section control="lattice.section-space" title="Lattice">
        <Select
          control="lattice.space"
          label="Lattice"
          value={s.space}
          options={KINDS}
          onChange={(v) => change({ space: v })}
        />
        {s.space === "own" &&
          [0, 1, 2].map((i) => (
            <TextField
              key={i}
              control={`lattice.basis-${i + 1}`}
              label={`Row ${i + 1}: three integers`}
              mono
              value={basis.slice(3 * i, 3 * i + 3).join(" ")}
              onChange={(text) => {
                const found = text
                  .trim()
                  .split(/[\s,]+/)
                  .map(Number);
                const next = settings.peek().basis.split(" ").map(Number);
                for (let k = 0; k < 3; k++) next[3 * i + k] = Number.isInteger(found[k]) ? found[k]! : 0;
                change({ basis: next.join(" ") });
              }}
            />
          ))}
        {s.space === "E8" && (
          <>
            <div class="row">
              {[0, 1, 2].map((i) => (
                <NumberField
                  key={i}
                  control={`lattice.row-${i + 1}`}
                  label={`Row ${i + 1}`}
                  value={rows[i] ?? i}
                  min={0}
                  max={7}
                  whole
                  onChange={(v) => {
                    const now = settings.peek().rows.split(" ").map(Number);
                    change({ rows: now.map((r, k) => (k === i ? v : r)).join(" ") });
                  }}
                />
              ))}
            </div>
            <div class="row">
              <NumberField
                control="lattice.layer"
                label="Layer: row"
                value={s.layer}
                min={0}
                max={7}
                whole
                onChange={(layer) => change({ layer })}
              />
              <NumberField
                control="lattice.shift"
                label="times"
                value={s.shift}
                min={-20}
                max={20}
                whole
                onChange={(shift) => change({ shift })}
              />
            </div>
            <p class="field-hint">
              Three rows of E₈'s basis span the slice; a fourth, taken so many times, moves it to a parallel
              layer.
            </p>
          </>
        )}
        {s.space !== "E8-roots" && (
          <Slider
            control="lattice.reach"
            label="How far, in shortest vectors"
            value={s.reach}
            min={1}
            max={6}
            step={0.5}
            onChange={(reach) => change({ reach })}
          />
        )}
      </Section>
      <Section control="lattice.section-show" title="Show">
        <Toggle
          control="lattice.spheres"
          label="Kissing spheres"
          value={s.spheres}
          onChange={(spheres) => change({ spheres })}
        />
        <Toggle
          control="lattice.cell"
          label="Voronoi cell"
          value={s.cell}
          onChange={(cell) => change({ cell })}
        />
        <Toggle
          control="lattice.vectors"
          label="Basis vectors"
          value={s.vectors}
          onChange={(vectors) => change({ vectors })}
        />
      </Section>
      {f && (
        <dl class="facts facts-panel">
          <Row name="Shortest vector" value={`√${f.norm} = ${f.length.toFixed(6)}`} />
          <Row name="Kissing number" value={`${f.kissing}${f.touching ? ", all touch" : ""}`} />
          <Row name="Volume of the cell" value={trim(f.volume)} />
          <Row name="Packing density" value={f.density.toFixed(6)} />
          {f.height > 0 && <Row name="Height of the layer" value={trim(f.height)} />}
          {f.cell && (
            <Row name="Faces, corners" value={`${f.cell.faces.length}, ${f.cell.vertices.length}`} />
          )}
        </dl>
      )}
    </>
  );
}

function trim(x: number): string {
  return String(Number(x.toPrecision(8)));
}

function Row({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class="mono">{value}</dd>
    </div>
  );
}
