/**
 * What the browser keeps between visits: how far this person had read, and which public rooms they are in.
 *
 * A convenience and no truth: where storage is refused or broken, nothing counts as unread and public rooms have to
 * be opened again.
 */
import type { Memory } from "../protocol/rooms";
import type { ClientView } from "../protocol/view";

const KEY = "corecast.memory";
const WRITE_AFTER_MS = 1_000;

export function loadMemory(): Memory | undefined {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "null") as Partial<Memory> | null;
    if (typeof stored?.userId !== "string") return undefined;
    const marks = Object.entries(stored.readSeqs ?? {}).filter(([, seq]) => isCount(seq));
    const publicRooms = (stored.publicRooms ?? []).filter((id) => typeof id === "string");
    return { userId: stored.userId, readSeqs: Object.fromEntries(marks), publicRooms };
  } catch {
    return undefined;
  }
}

export class MemoryWriter {
  #pending: Memory | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  note(view: ClientView): void {
    // Before `hello` and after the session's end nothing is known; what was stored must not be lost to that.
    if (!view.me || view.connection.name === "signed-out") return;
    const joined = view.rooms.filter((room) => room.joined);
    this.#pending = {
      userId: view.me.id,
      readSeqs: Object.fromEntries(joined.map((room) => [room.id, room.readSeq])),
      publicRooms: joined.filter((room) => room.kind === "public").map((room) => room.id),
    };
    this.#timer ??= setTimeout(() => this.flush(), WRITE_AFTER_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#pending) return;
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#pending));
    } catch {
      // Full or forbidden: the next visit starts anew.
    }
    this.#pending = undefined;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
