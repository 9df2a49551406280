import { Empty } from "../../controls";

export default function Lattice() {
  return (
    <Empty title="Lattice">
      <p>Being built.</p>
    </Empty>
  );
}
