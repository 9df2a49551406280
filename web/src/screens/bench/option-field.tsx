/** One option of a measurement as a control. */
import { useState } from "preact/hooks";
import { NumberField, Select, TextField, Toggle } from "../../controls";
import type { Option, Value } from "./api";
import { items } from "./options";

interface OptionProps {
  option: Option;
  value: Value | Value[];
  onChange: (value: Value | Value[]) => void;
}

/** The control that fits the option: a switch, a number, a choice, choices, a line of text. */
export function OptionField({ option, value, onChange }: OptionProps) {
  const label = option.name.replaceAll("_", " ");
  const common = { control: "bench.option", label };
  if (option.type === "bool")
    return (
      <div class="option-switch">
        <Toggle {...common} value={value === true} onChange={onChange} />
        <p class="field-hint">{option.help}</p>
      </div>
    );
  if (option.many && option.choices) {
    const chosen = (value as Value[] | null) ?? [];
    return (
      <fieldset class="choices">
        <legend class="field-label">{label}</legend>
        <div>
          {option.choices.map((choice) => (
            <label key={choice} class="choice">
              <input
                type="checkbox"
                data-control="bench.choice"
                checked={chosen.includes(choice)}
                disabled={chosen.length === 1 && chosen.includes(choice)}
                onChange={(e) =>
                  onChange(
                    option.choices!.filter((c) =>
                      c === choice ? e.currentTarget.checked : chosen.includes(c),
                    ),
                  )
                }
              />
              <span>{choice}</span>
            </label>
          ))}
        </div>
        <p class="field-hint">{option.help}</p>
      </fieldset>
    );
  }
  if (option.many) return <ListField option={option} value={value as Value[] | null} onChange={onChange} />;
  if (option.choices)
    return (
      <Select
        {...common}
        hint={option.help}
        value={String(value ?? "")}
        options={option.choices.map((c) => ({ value: c, label: c }))}
        onChange={onChange}
      />
    );
  if ((option.type === "int" || option.type === "float") && typeof value === "number")
    return (
      <NumberField
        {...common}
        hint={option.help}
        value={value}
        min={option.type === "int" ? 1 : -Infinity}
        max={2 ** 31 - 1}
        whole={option.type === "int"}
        onChange={onChange}
      />
    );
  return (
    <TextField
      {...common}
      hint={option.help}
      mono
      value={value === null ? "" : String(value)}
      onChange={(typed) => onChange(typed.trim() === "" ? null : typed.trim())}
    />
  );
}

function ListField({ option, value, onChange }: OptionProps & { value: Value[] | null }) {
  const [wrong, setWrong] = useState<string>();
  return (
    <TextField
      control="bench.option"
      label={`${option.name.replaceAll("_", " ")} (several, with commas)`}
      hint={option.help}
      error={wrong}
      mono
      value={(value ?? []).join(", ")}
      onChange={(typed) => {
        const found = items(option, typed);
        setWrong(found === undefined ? "Whole numbers with commas between them, please" : undefined);
        if (found !== undefined) onChange(found.length > 0 ? found : option.default);
      }}
    />
  );
}
