export { Button } from "./button";
export { classes, Field, type Named } from "./common";
export {
  NumberField,
  type Option,
  readNumber,
  Segmented,
  Select,
  Slider,
  TextField,
  Toggle,
} from "./fields";
export { type Column, Dialog, Empty, Section, Table } from "./panels";
