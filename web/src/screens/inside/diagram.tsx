/** The model as a diagram: what happens to the residual stream, from the tokens down to the logits. */
import { Toggle } from "../../controls";
import type { Op, Structure } from "./api";
import type { Block, Blocks, Layer } from "./blocks";
import { whole } from "./figures";
import { block, blocks, fixed, log, structure, trace, traceError, tracing } from "./state";
import { Measured, Mini, Weight } from "./stats";

export function Diagram() {
  const all = blocks.value;
  const s = structure.value;
  if (!all || !s) return null;
  const t = trace.value?.tokens.length;
  return (
    <div class="two">
      <div class="diagram" role="group" aria-label="The model's blocks">
        <p class="diagram-facts">
          <b>{whole(all.parameters)}</b> parameters, {all.layers.length} layers of width {s.model.width},{" "}
          {s.model.heads} {s.model.heads === 1 ? "head" : "heads"} of {s.model.width / s.model.heads}, context{" "}
          {s.model.context}, {s.precision}
          {t !== undefined && <span class="quiet">; T = {t} in this text</span>}
        </p>
        <Flow all={all} s={s} />
      </div>
      <Inspector all={all} />
    </div>
  );
}

function Flow({ all, s }: { all: Blocks; s: Structure }) {
  const many = all.layers.length > 12;
  return (
    <div class="flow">
      <div class="flow-word mono">
        tokens <span class="quiet">T</span>
      </div>
      <div class="flow-end">
        <Box of={all.embedding} />
      </div>
      <div class="rail-label mono quiet">residual stream, T × {s.model.width}</div>
      {all.layers.map((layer) => (
        <LayerRows key={layer.number} layer={layer} tight={many} />
      ))}
      <div class="flow-end">
        <Box of={all.norm} />
        <Box of={all.head} />
      </div>
      <div class="flow-word mono">
        logits <span class="quiet">T × {s.model.vocab}</span>
      </div>
    </div>
  );
}

function LayerRows({ layer, tight }: { layer: Layer; tight: boolean }) {
  return (
    <section class={tight ? "layer layer-tight" : "layer"} aria-label={`Layer ${layer.number}`}>
      <header class="layer-head">
        Layer {layer.number} <span class="quiet mono">{whole(layer.parameters)}</span>
      </header>
      {[layer.attention, layer.feed].map((row, i) => (
        <div key={i} class="branch-row">
          <span class="rail-tap" aria-hidden="true" />
          {row.map((b) => (
            <Box key={b.id} of={b} />
          ))}
          <span class="rail-sum" aria-hidden="true" title="The branch is added to the residual stream">
            +
          </span>
        </div>
      ))}
    </section>
  );
}

function opsOf(b: Block): Op[] {
  const found = trace.value?.ops ?? [];
  return b.ops.flatMap(({ op }) => found.filter((o) => o.op === op && o.layer === (b.layer ?? null)));
}

function Box({ of }: { of: Block }) {
  const ops = opsOf(of);
  const bad = ops.some((o) => o.nan + o.infinite > 0);
  return (
    <button
      type="button"
      class={`block block-${of.kind} ${bad ? "block-bad" : ""}`}
      data-control="inside.block"
      data-block={of.id}
      aria-pressed={block.value === of.id}
      onClick={() => {
        block.value = of.id;
      }}
    >
      <span class="block-title">{of.title}</span>
      <span class="block-shape mono">→ {of.output}</span>
      <span class="block-minis">
        {ops.length > 0 ? ops.map((o) => <Mini key={o.op} of={o} />) : <Mini of={undefined} />}
      </span>
      <span class="block-count mono">{of.parameters > 0 ? whole(of.parameters) : " "}</span>
    </button>
  );
}

function Inspector({ all }: { all: Blocks }) {
  const b = all.all.get(block.value) ?? all.embedding;
  const ops = opsOf(b);
  return (
    <aside class="side" aria-label={`About ${b.title}`}>
      <header class="side-head">
        <h2>
          {b.title}
          {b.layer !== undefined && <span class="quiet"> in layer {b.layer}</span>}
        </h2>
        <p class="formula mono">{b.formula}</p>
        <p class="mono quiet">
          {b.input} → {b.output}
          {b.parameters > 0 && <>; {whole(b.parameters)} parameters</>}
        </p>
        {b.note && <p class="quiet">{b.note}</p>}
        <Toggle
          control="inside.log"
          label="Logarithmic counts"
          hint="Heights of the bars: log(1 + count), so that rare values can be seen"
          value={log.value}
          onChange={(v) => {
            log.value = v;
          }}
        />
      </header>
      <h3>On this text</h3>
      {ops.map((o) => (
        <Measured key={o.op} title={b.ops.find((one) => one.op === o.op)!.label} of={o} />
      ))}
      {ops.length === 0 && (
        <p class="quiet">
          {traceError.value
            ? "The text could not be read; the reason stands above."
            : tracing.value
              ? "Reading the text …"
              : "No text has been read."}
        </p>
      )}
      <h3>Weights</h3>
      {b.tensors.map((t) => (
        <Weight
          key={t.name}
          of={fixed.value}
          name={t.name}
          {...(t.trained ? {} : { note: "Fixed: not trained." })}
        />
      ))}
      {b.tensors.length === 0 && <p class="quiet">It has none.</p>}
    </aside>
  );
}
