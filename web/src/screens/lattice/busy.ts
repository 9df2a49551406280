/** How much is on its way: questions to the server and glides of the view. */
import { computed, signal } from "@preact/signals";

export const busy = signal(0);
export const isBusy = computed(() => busy.value > 0);

export async function counted<T>(work: () => Promise<T>): Promise<T> {
  busy.value += 1;
  try {
    return await work();
  } finally {
    busy.value -= 1;
  }
}
