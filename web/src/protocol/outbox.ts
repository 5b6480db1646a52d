/**
 * Our own messages of one room on their way to the server.
 *
 * One frame is in flight at a time and everything typed meanwhile rides in the next one: the sender's order holds
 * even when a frame is refused for now and repeated. Each message keeps its `clientMessageId` through all repeats,
 * so the server stores it once.
 *
 * A frame is stored all or none. When a frame of several messages is refused for good, they go again one by one, so
 * that only the guilty one fails.
 */
import { Backoff, type Random } from "./backoff";
import type { Ack, ErrorFrame, Message, OutgoingMessage } from "./frames";
import { FRAME_CONTENT_BYTES_MAX, FRAME_MESSAGES_MAX, OUTBOX_MESSAGES_MAX, RETRY_MIN_MS } from "./limits";
import { utf8Length } from "./text";

/** A message as its author sees it before the room shows it. */
export interface PendingMessage {
  readonly clientMessageId: string;
  readonly content: string;
  /** When it was written, milliseconds since 1970 UTC by this machine. */
  readonly timestamp: number;
  readonly state: "sending" | "sent" | "failed";
  /** Why it failed, or why it waits. */
  readonly error: string | undefined;
}

interface Entry {
  readonly clientMessageId: string;
  readonly content: string;
  readonly timestamp: number;
  stage: "queued" | "in-flight" | "acked" | "failed";
  error: string | undefined;
  /** Travels in a frame of its own. */
  alone: boolean;
  /** The room's number when this first left: only a later message can be this one. */
  sentAfter: number | undefined;
  seq: number | undefined;
  /** Number of an arrived message that looks like this one: hides the copy until the acknowledgement decides. */
  lookalike: number | undefined;
}

export class Outbox {
  #entries: Entry[] = [];
  #sentAt: number | undefined;
  #retryAt = 0;
  readonly #pauses: Backoff;

  constructor(random: Random) {
    this.#pauses = new Backoff(random);
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }
  get isFull(): boolean {
    return this.#entries.length >= OUTBOX_MESSAGES_MAX;
  }
  /** When the frame in flight left; `undefined` when none is. */
  get sentAt(): number | undefined {
    return this.#sentAt;
  }
  /** What the author still has to see; a copy that arrived in the room is not shown twice. */
  get pending(): readonly PendingMessage[] {
    return this.#entries
      .filter((entry) => entry.lookalike === undefined)
      .map(({ clientMessageId, content, timestamp, stage, error }) => ({
        clientMessageId,
        content,
        timestamp,
        state: stage === "failed" ? "failed" : stage === "acked" ? "sent" : "sending",
        error,
      }));
  }

  add(clientMessageId: string, content: string, timestamp: number): void {
    this.#entries.push({
      clientMessageId,
      content,
      timestamp,
      stage: "queued",
      error: undefined,
      alone: false,
      sentAfter: undefined,
      seq: undefined,
      lookalike: undefined,
    });
  }

  /** Queues a failed message again, last in line: what was written after it may be stored already. */
  retry(clientMessageId: string): void {
    const entry = this.#entries.find((candidate) => candidate.clientMessageId === clientMessageId);
    if (entry?.stage !== "failed") return;
    this.#entries = [...this.#entries.filter((other) => other !== entry), entry];
    entry.stage = "queued";
    entry.error = undefined;
    entry.alone = true;
  }

  /** Gives up a failed message. One that may already be stored cannot be taken back. */
  discard(clientMessageId: string): void {
    this.#entries = this.#entries.filter((entry) => entry.clientMessageId !== clientMessageId || entry.stage !== "failed");
  }

  /** The next frame's messages, or nothing to send now. `last` is the number at which the room stands. */
  pollFrame(now: number, last: number): readonly OutgoingMessage[] | undefined {
    if (this.#sentAt !== undefined || now < this.#retryAt) return undefined;
    const frame = this.#nextFrame();
    if (frame.length === 0) return undefined;
    for (const entry of frame) {
      entry.stage = "in-flight";
      entry.sentAfter ??= last;
    }
    this.#sentAt = now;
    return frame.map(({ content, clientMessageId }) => ({ content, clientMessageId }));
  }

  /** When `pollFrame` will have something, given no other event. */
  pollTimeout(): number | undefined {
    const waits = this.#sentAt === undefined && this.#entries.some((entry) => entry.stage === "queued");
    return waits ? this.#retryAt : undefined;
  }

  handleAck(acks: readonly Ack[]): void {
    for (const ack of acks) {
      const entry = this.#entries.find((candidate) => candidate.clientMessageId === ack.clientMessageId);
      if (!entry) continue;
      entry.stage = "acked";
      entry.error = undefined;
      entry.seq = ack.seq;
      // The copy that hid this one may have been another's with the same words.
      if (entry.lookalike !== ack.seq) entry.lookalike = undefined;
    }
    this.#pauses.reset();
    this.#endFlight();
  }

  /** An error frame for this room's `clientMessages`. */
  handleError(error: ErrorFrame, now: number): void {
    const flight = this.#entries.filter((entry) => entry.stage === "in-flight");
    const { clientMessageId } = error;
    if (clientMessageId !== undefined && flight.every((entry) => entry.clientMessageId !== clientMessageId)) return;
    for (const entry of flight) entry.stage = "queued";
    if (error.retryAfterMs !== undefined) {
      this.#retryAt = now + Math.max(error.retryAfterMs, RETRY_MIN_MS, this.#pauses.next());
      for (const entry of flight) entry.error = error.message;
    } else if (flight.length === 1) {
      const guilty = flight[0] as Entry;
      guilty.stage = "failed";
      guilty.error = error.message;
      guilty.lookalike = undefined;
    } else {
      // The error may name a message, but only to say which frame it means.
      for (const entry of flight) entry.alone = true;
    }
    this.#endFlight();
  }

  /** The connection is gone: what was in flight goes again, in the same order and under the same keys. */
  handleDisconnect(): void {
    for (const entry of this.#entries) {
      if (entry.stage === "in-flight") entry.stage = "queued";
    }
    this.#sentAt = undefined;
    this.#retryAt = 0;
  }

  /** One of our own messages became visible in the room, perhaps before its acknowledgement. */
  noticeOwn(message: Message): void {
    const twin = this.#entries.find(
      ({ stage, sentAfter, lookalike, content }) =>
        (stage === "in-flight" || stage === "queued") &&
        sentAfter !== undefined &&
        sentAfter < message.seq &&
        lookalike === undefined &&
        content === message.content,
    );
    if (twin) twin.lookalike = message.seq;
  }

  /** Everything up to `last` is visible in the room. */
  settle(last: number): void {
    this.#entries = this.#entries.filter((entry) => entry.stage !== "acked" || (entry.seq as number) > last);
  }

  /** The room's numbers began anew; an acknowledged message is part of what the server shows, or lost with it. */
  forgetAcked(): void {
    this.#entries = this.#entries.filter((entry) => entry.stage !== "acked");
  }

  #nextFrame(): Entry[] {
    const frame: Entry[] = [];
    let bytes = 0;
    for (const entry of this.#entries) {
      if (entry.stage !== "queued") continue;
      bytes += utf8Length(entry.content);
      const fits = frame.length < FRAME_MESSAGES_MAX && bytes <= FRAME_CONTENT_BYTES_MAX;
      if (frame.length > 0 && (!fits || entry.alone)) break;
      frame.push(entry);
      if (entry.alone) break;
    }
    return frame;
  }

  #endFlight(): void {
    if (this.#entries.every((entry) => entry.stage !== "in-flight")) this.#sentAt = undefined;
  }
}
