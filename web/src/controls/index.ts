export { Button } from "./button";
export { classes, Field, type Named } from "./common";
export {
  NumberField,
  type Option,
  Segmented,
  Select,
  Slider,
  TextField,
  Toggle,
} from "./fields";
export { useModal } from "./modal";
export { readNumber } from "./numbers";
export { type Column, Dialog, Empty, type Figure, Figures, Section, Table } from "./panels";
