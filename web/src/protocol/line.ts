/**
 * The number line of one room as this browser holds it.
 *
 * ```
 *   1 … first ────────── last      ahead (waits above a hole)
 *   older  └─ messages ──┘   └ ? ┘ └──────┘
 * ```
 *
 * Invariants: `messages` has consecutive numbers and ends at `last` unless it is empty; `ahead` holds numbers above
 * `last + 1` only, ascending, at most `AHEAD_MESSAGES_MAX`. Nothing is ever shown above a hole.
 */
import type { Message } from "./frames";
import { AHEAD_MESSAGES_MAX } from "./limits";

/** The numbers `after + 1 … before − 1` are missing. */
export interface Hole {
  readonly after: number;
  readonly before: number;
}

export class Line {
  #epoch: number | undefined;
  #last = 0;
  #hasOlder = false;
  #messages: Message[] = [];
  #ahead: Message[] = [];

  /** `undefined` until the server named it: a room learnt from its creation alone. */
  get epoch(): number | undefined {
    return this.#epoch;
  }
  get last(): number {
    return this.#last;
  }
  /** Older messages exist on the server. */
  get hasOlder(): boolean {
    return this.#hasOlder;
  }
  get messages(): readonly Message[] {
    return this.#messages;
  }
  get first(): Message | undefined {
    return this.#messages[0];
  }
  get hole(): Hole | undefined {
    const next = this.#ahead[0];
    return next && { after: this.#last, before: next.seq };
  }

  /** Forgets everything and starts from what the server says. */
  replace(epoch: number | undefined, lastSeq: number, messages: readonly Message[], hasOlder: boolean): void {
    this.#epoch = epoch;
    this.#ahead = [];
    this.#messages = consecutiveTail(messages);
    // A page that ends below the named number leaves a hole that the next message would show; trust the page.
    this.#last = this.#messages.at(-1)?.seq ?? lastSeq;
    this.#hasOlder = hasOlder;
  }

  /** Takes messages that continue the line; returns those that became visible. Repeats are dropped. */
  extend(messages: readonly Message[]): readonly Message[] {
    const start = this.#messages.length;
    for (const message of messages) {
      if (message.seq === this.#last + 1) this.#push(message);
      else if (message.seq > this.#last) this.#keepAhead(message);
    }
    this.#drainAhead();
    return this.#messages.slice(start);
  }

  /** Takes a page of older messages; only what ends right below the first one held is usable. */
  prepend(messages: readonly Message[], hasOlder: boolean): void {
    let below = (this.#messages[0]?.seq ?? this.#last + 1) - 1;
    const usable: Message[] = [];
    for (let index = messages.length - 1; index >= 0; index -= 1) {
      const message = messages[index] as Message;
      if (message.seq > below) continue;
      if (message.seq < below) break;
      usable.push(message);
      below -= 1;
    }
    if (usable.length > 0) this.#messages = [...usable.reverse(), ...this.#messages];
    // An empty page that says "nothing older" is an answer too; a page that did not fit is none.
    if (usable.length > 0 || messages.length === 0) this.#hasOlder = hasOlder;
  }

  /** Does this page continue the line, or touch it? If not, only `replace` can use it. */
  touches(messages: readonly Message[]): boolean {
    const first = messages[0];
    return first === undefined || first.seq <= this.#last + 1;
  }

  /** A page named the epoch of a room that was learnt without one. */
  learnEpoch(epoch: number): void {
    this.#epoch ??= epoch;
  }

  /** Keeps the newest `max` messages. */
  trim(max: number): void {
    if (this.#messages.length <= max) return;
    this.#messages = this.#messages.slice(-max);
    this.#hasOlder = true;
  }

  #push(message: Message): void {
    this.#messages.push(message);
    this.#last = message.seq;
  }

  #keepAhead(message: Message): void {
    const top = this.#ahead.at(-1);
    if (top && message.seq <= top.seq) {
      if (this.#ahead.some((held) => held.seq === message.seq)) return;
      this.#ahead.push(message);
      this.#ahead.sort((a, b) => a.seq - b.seq);
    } else {
      this.#ahead.push(message);
    }
    // The lowest stay: they close the hole first, and the rest is asked for again from there.
    if (this.#ahead.length > AHEAD_MESSAGES_MAX) this.#ahead.length = AHEAD_MESSAGES_MAX;
  }

  #drainAhead(): void {
    let used = 0;
    for (const message of this.#ahead) {
      if (message.seq > this.#last + 1) break;
      if (message.seq === this.#last + 1) this.#push(message);
      used += 1;
    }
    if (used > 0) this.#ahead.splice(0, used);
  }
}

/** The longest run of consecutive numbers at the end: a page with a hole in it is worth its newest part. */
function consecutiveTail(messages: readonly Message[]): Message[] {
  let start = messages.length - 1;
  while (start > 0 && (messages[start - 1] as Message).seq === (messages[start] as Message).seq - 1) start -= 1;
  return messages.slice(Math.max(start, 0));
}
