/**
 * Requests for pages of history, one in flight at a time.
 *
 * The server keeps one reply in flight per connection, and its answer names the room but not the question: with a
 * single request on the wire the two always belong together.
 */

/** older: the reader scrolled up · newer: the line has a hole · newest: what is held is beyond repair. */
export type HistoryPurpose = "older" | "newer" | "newest";

export interface HistoryRequest {
  readonly roomId: string;
  readonly purpose: HistoryPurpose;
}

interface Waiting extends HistoryRequest {
  readonly notBefore: number;
}

export class HistoryDesk {
  #waiting: Waiting[] = [];
  #inFlight: (HistoryRequest & { readonly sentAt: number }) | undefined;

  get sentAt(): number | undefined {
    return this.#inFlight?.sentAt;
  }

  /** Queues a request; the same one twice is one. */
  ask(roomId: string, purpose: HistoryPurpose, notBefore: number): void {
    if (this.isAsked(roomId, purpose)) return;
    this.#waiting.push({ roomId, purpose, notBefore });
  }

  isAsked(roomId: string, purpose: HistoryPurpose): boolean {
    const same = (request: HistoryRequest) => request.roomId === roomId && request.purpose === purpose;
    return this.#waiting.some(same) || (this.#inFlight !== undefined && same(this.#inFlight));
  }

  pollRequest(now: number): HistoryRequest | undefined {
    if (this.#inFlight) return undefined;
    const index = this.#waiting.findIndex((request) => now >= request.notBefore);
    const [request] = index < 0 ? [] : this.#waiting.splice(index, 1);
    if (!request) return undefined;
    this.#inFlight = { roomId: request.roomId, purpose: request.purpose, sentAt: now };
    return this.#inFlight;
  }

  pollTimeout(): number | undefined {
    if (this.#inFlight || this.#waiting.length === 0) return undefined;
    return Math.min(...this.#waiting.map((request) => request.notBefore));
  }

  /** A page for this room arrived: which question does it answer? */
  handleAnswer(roomId: string): HistoryPurpose | undefined {
    return this.handleError(roomId)?.purpose;
  }

  /** The question was refused; an error that names no room belongs to the one in flight. */
  handleError(roomId: string | undefined): HistoryRequest | undefined {
    const request = this.#inFlight;
    if (roomId !== undefined && request?.roomId !== roomId) return undefined;
    this.#inFlight = undefined;
    return request;
  }

  /** Drops what waits for this room; an answer under way is ignored by the room itself. */
  forget(roomId: string): void {
    this.#waiting = this.#waiting.filter((request) => request.roomId !== roomId);
  }

  handleDisconnect(): void {
    this.#waiting = [];
    this.#inFlight = undefined;
  }
}
