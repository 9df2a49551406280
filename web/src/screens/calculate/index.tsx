import { Empty } from "../../controls";

export default function Calculate() {
  return (
    <Empty title="Calculate">
      <p>Being built.</p>
    </Empty>
  );
}
