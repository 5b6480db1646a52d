/**
 * One room in this browser: its line, our outbox, how far it was read.
 *
 * Every way into a room (`hello`, `joined`, `cut`, a page, a live frame) ends here, and each keeps the rule of the
 * line: consecutive numbers, each once.
 */
import type { Random } from "./backoff";
import type { Message, RoomKind, RoomState } from "./frames";
import { IDLE_ROOM_MESSAGES_MAX, OPEN_ROOM_MESSAGES_MAX } from "./limits";
import { Line } from "./line";
import { Outbox } from "./outbox";
import type { OlderView, RoomView } from "./view";

/** Trimming copies the list, so it happens once per so many messages. */
const TRIM_SLACK = 100;

export class Room {
  readonly line = new Line();
  readonly outbox: Outbox;
  name = "";
  creatorId = "";
  kind: RoomKind = "default";
  joined = false;
  isJoining = false;
  joinError: string | undefined;
  /** A refused join is tried again then. */
  joinRetryAt: number | undefined;
  lagging = false;
  readSeq = 0;
  /** Answers in a row that did not help to close the present hole. */
  gapTries = 0;
  olderLoading = false;
  olderError: string | undefined;
  #view: RoomView | undefined;

  constructor(
    readonly id: string,
    random: Random,
  ) {
    this.outbox = new Outbox(random);
  }

  describe(name: string, creatorId: string, kind: RoomKind): void {
    this.name = name;
    this.creatorId = creatorId;
    this.kind = kind;
  }

  /** Takes the room as `hello` or `joined` has it: a continuation where possible, else a fresh start. */
  absorb(state: RoomState, myId: string): void {
    this.describe(state.name, state.creatorId, state.kind);
    this.isJoining = false;
    this.joinError = undefined;
    this.joinRetryAt = undefined;
    this.lagging = false;
    const sameEpoch = this.line.epoch === undefined || this.line.epoch === state.epoch;
    const complete = state.messages.length > 0 || state.lastSeq <= this.line.last;
    if (!state.cut && sameEpoch && complete && this.line.touches(state.messages)) {
      this.line.learnEpoch(state.epoch);
      this.extend(state.messages, myId);
    } else {
      this.replace(state.epoch, state.lastSeq, state.messages, state.hasMoreMessages, myId);
    }
  }

  replace(epoch: number | undefined, lastSeq: number, messages: readonly Message[], hasOlder: boolean, myId: string): void {
    if (this.line.epoch !== undefined && this.line.epoch !== epoch) this.outbox.forgetAcked();
    this.line.replace(epoch, lastSeq, messages, hasOlder);
    this.gapTries = 0;
    this.olderLoading = false;
    this.olderError = undefined;
    this.lagging = false;
    this.readSeq = Math.min(this.readSeq, this.line.last);
    this.#settle(this.line.messages, myId);
  }

  /** Continues the line; says whether anything became visible. */
  extend(messages: readonly Message[], myId: string): boolean {
    const added = this.line.extend(messages);
    if (added.length === 0) return false;
    this.gapTries = 0;
    for (const message of added) {
      // Whoever answers has seen what stands above.
      if (message.user.id === myId) this.readSeq = message.seq;
    }
    this.#settle(added, myId);
    return true;
  }

  markRead(seq: number): boolean {
    const upTo = Math.min(seq, this.line.last);
    if (upTo <= this.readSeq) return false;
    this.readSeq = upTo;
    return true;
  }

  /** We are not in the room any more; the messages would silently grow old, so they go. */
  exit(): void {
    this.joined = false;
    this.isJoining = false;
    this.lagging = false;
    this.olderLoading = false;
    this.line.replace(undefined, 0, [], false);
  }

  handleDisconnect(): void {
    this.outbox.handleDisconnect();
    this.lagging = false;
    this.olderLoading = false;
    this.olderError = undefined;
    this.isJoining = false;
    this.joinRetryAt = undefined;
  }

  trim(isOpen: boolean): void {
    const max = isOpen ? OPEN_ROOM_MESSAGES_MAX : IDLE_ROOM_MESSAGES_MAX;
    if (this.line.messages.length > max + TRIM_SLACK) this.line.trim(max);
  }

  /** Something that shows has changed. */
  touch(): void {
    this.#view = undefined;
  }

  view(): RoomView {
    this.#view ??= {
      id: this.id,
      name: this.name,
      kind: this.kind,
      creatorId: this.creatorId,
      joined: this.joined,
      joinError: this.joinError,
      messages: [...this.line.messages],
      pending: this.outbox.pending,
      lastSeq: this.line.last,
      readSeq: this.readSeq,
      unread: this.joined ? this.line.last - this.readSeq : 0,
      lagging: this.lagging,
      older: this.#olderView(),
    };
    return this.#view;
  }

  #olderView(): OlderView {
    if (!this.joined || !this.line.hasOlder) return { name: "none" };
    if (this.olderError !== undefined) return { name: "failed", message: this.olderError };
    if (this.olderLoading) return { name: "loading" };
    return { name: this.line.messages.length >= OPEN_ROOM_MESSAGES_MAX ? "full" : "available" };
  }

  /** Pending copies of what the room shows now go away. */
  #settle(visible: readonly Message[], myId: string): void {
    for (const message of visible) {
      if (message.user.id === myId) this.outbox.noticeOwn(message);
    }
    this.outbox.settle(this.line.last);
  }
}
