/**
 * All rooms of this browser, what they ask of the server and what they do with its answers.
 *
 * Calling order as in `client.ts`, which owns this; nothing here knows whether a connection exists, except that
 * `pollFrame` and `pollTimeout` are called only while one is open.
 */
import type { Random } from "./backoff";
import type { ClientFrame, Cursor, ErrorFrame, HistoryAnchor, RoomState, ServerFrame, ServerCreateRoom, User } from "./frames";
import { HistoryDesk, type HistoryPurpose } from "./history";
import { GAP_PAGE, GAP_TRIES_MAX, HISTORY_PAGE, REJOIN_ROOMS_MAX, REQUEST_TIMEOUT_MS, RESUME_ROOMS_MAX, RETRY_MIN_MS } from "./limits";
import { Room } from "./room";
import type { RoomView } from "./view";

/** What the browser knows of an earlier visit. */
export interface Memory {
  readonly userId: string;
  /** How far they had read, by room. */
  readonly readSeqs: Readonly<Record<string, number>>;
  /** Rooms they had joined by opening them, by id: a `hello` does not name these. */
  readonly publicRooms: readonly string[];
}

export interface RoomsOptions {
  readonly random: Random;
  readonly memory: Memory | undefined;
  readonly log: (line: string) => void;
}

type HistoryFrame = Extract<ServerFrame, { type: "serverRoomHistory" }>;
/** Frames that mean something only in a room that we are in. */
export type RoomFrame = Extract<ServerFrame, { type: "serverMessages" | "ack" | "lagging" | "caughtUp" | "cut" }>;

export class Rooms {
  readonly #rooms = new Map<string, Room>();
  /** Rooms whose outbox is not empty: the only ones worth asking for frames and timers. */
  readonly #busy = new Set<Room>();
  readonly #history = new HistoryDesk();
  #controls: ClientFrame[] = [];
  /** Rooms named in the last `resume`: the server puts us into these. */
  #resumed = new Set<string>();
  #openId: string | undefined;
  #myId = "";

  #memory: Memory | undefined;

  constructor(private readonly options: RoomsOptions) {
    this.#memory = options.memory;
  }

  get(id: string | undefined): Room | undefined {
    return id === undefined ? undefined : this.#rooms.get(id);
  }

  get isLagging(): boolean {
    return [...this.#rooms.values()].some((room) => room.lagging);
  }

  views(): readonly RoomView[] {
    return [...this.#rooms.values()].map((room) => room.view());
  }

  /** To be called after every change that was not made by this type itself. */
  touch(room: Room): void {
    room.touch();
    if (room.outbox.isEmpty) this.#busy.delete(room);
    else this.#busy.add(room);
  }

  // ---- commands ----

  /** The room on the screen: it may hold more messages, and a public one is joined by this. */
  open(id: string | undefined, isConnected: boolean): void {
    const before = this.get(this.#openId);
    this.#openId = id;
    if (before && before.id !== id) this.#trim(before);
    if (isConnected) this.joinOpen();
  }

  joinOpen(): void {
    const room = this.get(this.#openId);
    if (room?.kind !== "public") return;
    const { epoch, last } = room.line;
    // Without an epoch it could not be resumed after a reconnect; the answer to `join` names it.
    if (room.isJoining || (room.joined && epoch !== undefined)) return;
    room.isJoining = true;
    room.joinError = undefined;
    room.joinRetryAt = undefined;
    this.#controls.push({ type: "join", roomId: room.id, cursor: epoch === undefined ? undefined : { epoch, seq: last } });
    this.touch(room);
  }

  leave(id: string): void {
    const room = this.#rooms.get(id);
    if (room?.kind !== "public" || !room.joined) return;
    this.#controls.push({ type: "leave", roomId: id });
    this.#exit(room);
  }

  loadOlder(id: string, now: number): void {
    const room = this.#rooms.get(id);
    const older = room?.view().older.name;
    if (!room || (older !== "available" && older !== "failed")) return;
    room.olderLoading = true;
    room.olderError = undefined;
    this.#history.ask(id, "older", now);
    this.touch(room);
  }

  /** Asks something that must be answered, to learn whether the connection lives. */
  probe(now: number): void {
    const room = this.get(this.#openId);
    if (room?.joined) this.#history.ask(room.id, "newer", now);
  }

  clear(): void {
    this.handleSignedOut();
    this.#rooms.clear();
    this.#busy.clear();
    this.handleDisconnect();
  }

  /** Whoever logs in next may be another person: only unsent messages wait for this one to return. */
  handleSignedOut(): void {
    if (this.#myId !== "") this.#memory = this.#remember();
    this.#myId = "";
    for (const room of this.#rooms.values()) this.#exit(room);
  }

  handleDisconnect(): void {
    this.#controls = [];
    this.#history.handleDisconnect();
    for (const room of this.#rooms.values()) {
      room.handleDisconnect();
      room.touch();
    }
  }

  // ---- frames in ----

  /** Returns the names of rooms that are gone together with something unsent. */
  handleHello(me: User, states: readonly RoomState[], now: number): readonly string[] {
    this.#myId = me.id;
    const listed = new Set(states.map((state) => state.id));
    const lost: string[] = [];
    for (const room of this.#rooms.values()) {
      if (listed.has(room.id)) continue;
      this.#exit(room);
      if (room.kind === "public") continue;
      if (!room.outbox.isEmpty) lost.push(room.name);
      this.#rooms.delete(room.id);
      this.#busy.delete(room);
    }
    // A public room is ours only where we resumed it; the list may name it just to say that it exists.
    for (const state of states) this.#absorb(state, state.kind !== "public" || this.#resumed.has(state.id), now);
    this.#rejoin();
    this.joinOpen();
    return lost;
  }

  handleJoined(state: RoomState, now: number): void {
    this.#absorb(state, true, now);
  }

  handleCreated(created: Exclude<ServerCreateRoom["created"], "taken">): void {
    if (this.#rooms.has(created.roomId)) return;
    const room = this.#add(created.roomId);
    room.describe(created.roomName, created.creatorId, created.kind);
    room.joined = created.kind !== "public" || created.creatorId === this.#myId;
    room.line.replace(created.epoch, 0, [], false);
    this.touch(room);
  }

  handleFrame(frame: RoomFrame, now: number): void {
    const room = this.#rooms.get(frame.roomId);
    // A frame that crossed our `leave`, or of a room that we never heard of: nobody would see it.
    if (!room?.joined) return;
    switch (frame.type) {
      case "serverMessages":
        room.extend(frame.messages, this.#myId);
        this.#askHole(room, now);
        this.#trim(room);
        break;
      case "ack":
        room.outbox.handleAck(frame.messages);
        room.outbox.settle(room.line.last);
        break;
      case "lagging":
      case "caughtUp":
        room.lagging = frame.type === "lagging";
        break;
      case "cut":
        this.#history.forget(room.id);
        room.replace(frame.epoch, frame.lastSeq, frame.messages, frame.hasMoreMessages, this.#myId);
        break;
    }
    this.touch(room);
  }

  handleHistory(page: HistoryFrame, now: number): void {
    const purpose = this.#history.handleAnswer(page.roomId);
    const room = this.#rooms.get(page.roomId);
    if (purpose === undefined || !room?.joined) return;
    this.#handlePage(room, purpose, page, now);
    this.touch(room);
  }

  handleMessagesError(error: ErrorFrame, now: number): void {
    const named = this.get(error.roomId);
    // An error that names no room belongs to whatever is in flight.
    const rooms = named ? [named] : [...this.#busy].filter((room) => room.outbox.sentAt !== undefined);
    for (const room of rooms) {
      room.outbox.handleError(error, now);
      this.touch(room);
    }
  }

  handleHistoryError(error: ErrorFrame, now: number): void {
    const request = this.#history.handleError(error.roomId);
    const room = this.get(request?.roomId);
    if (!request || !room) return;
    const notBefore = now + Math.max(error.retryAfterMs ?? 0, RETRY_MIN_MS);
    if (request.purpose === "older") {
      room.olderLoading = false;
      room.olderError = error.message;
      if (error.retryAfterMs !== undefined) this.#history.ask(room.id, "older", notBefore);
    } else {
      this.#askAgain(room, notBefore);
    }
    this.touch(room);
  }

  handleJoinError(error: ErrorFrame, now: number): void {
    const room = this.get(error.roomId);
    if (!room) return;
    room.isJoining = false;
    room.joinError = error.message;
    room.joinRetryAt = error.retryAfterMs === undefined ? undefined : now + Math.max(error.retryAfterMs, RETRY_MIN_MS);
    this.touch(room);
  }

  handleTick(now: number): void {
    const retryAt = this.get(this.#openId)?.joinRetryAt;
    if (retryAt !== undefined && now >= retryAt) this.joinOpen();
  }

  /** An answer is overdue: a browser does not see missing pings, so this is how it notices a dead peer. */
  isOverdue(now: number): boolean {
    return this.#deadlines().some((at) => at !== undefined && now >= at);
  }

  // ---- frames out ----

  /** Where we stand, for `resume`. */
  takeCursors(): readonly Cursor[] {
    const cursors: Cursor[] = [];
    for (const room of this.#rooms.values()) {
      const { epoch, last } = room.line;
      if (!room.joined || epoch === undefined) continue;
      const cursor = { roomId: room.id, epoch, seq: last };
      // The room on the screen must not be among those that a full list leaves out.
      if (room.id === this.#openId) cursors.unshift(cursor);
      else cursors.push(cursor);
    }
    const taken = cursors.slice(0, RESUME_ROOMS_MAX);
    this.#resumed = new Set(taken.map((cursor) => cursor.roomId));
    return taken;
  }

  pollFrame(now: number): ClientFrame | undefined {
    return this.#controls.shift() ?? this.#nextHistory(now) ?? this.#nextMessages(now);
  }

  pollTimeout(): number | undefined {
    const times = [this.#history.pollTimeout(), this.get(this.#openId)?.joinRetryAt, ...this.#deadlines()];
    for (const room of this.#busy) {
      if (room.joined) times.push(room.outbox.pollTimeout());
    }
    return times.reduce((least, time) => (least === undefined || (time !== undefined && time < least) ? time : least), undefined);
  }

  #deadlines(): (number | undefined)[] {
    const sentAt = [this.#history.sentAt, ...[...this.#busy].map((room) => room.outbox.sentAt)];
    return sentAt.map((at) => (at === undefined ? undefined : at + REQUEST_TIMEOUT_MS));
  }

  #nextHistory(now: number): ClientFrame | undefined {
    const request = this.#history.pollRequest(now);
    const room = this.get(request?.roomId);
    if (!request || !room) return undefined;
    if (request.purpose === "older") {
      room.olderLoading = true;
      room.olderError = undefined;
      this.touch(room);
    }
    const count = request.purpose === "newer" ? GAP_PAGE : HISTORY_PAGE;
    return { type: "requestRoomHistory", roomId: room.id, anchor: anchorOf(room, request.purpose), count };
  }

  #nextMessages(now: number): ClientFrame | undefined {
    for (const room of this.#busy) {
      const messages = room.joined ? room.outbox.pollFrame(now, room.line.last) : undefined;
      if (messages) return { type: "clientMessages", roomId: room.id, messages };
    }
    return undefined;
  }

  // ---- one room ----

  #absorb(state: RoomState, joined: boolean, now: number): void {
    const known = this.#rooms.get(state.id);
    const room = known ?? this.#add(state.id);
    const isNew = !room.joined;
    room.joined = joined;
    if (joined) room.absorb(state, this.#myId);
    else room.describe(state.name, state.creatorId, state.kind);
    if (isNew && joined) room.readSeq = this.#firstReadSeq(room, known);
    this.#askHole(room, now);
    this.#trim(room);
    this.touch(room);
  }

  /** Who was never here has nothing unread; who was here has not seen what came since. */
  #firstReadSeq(room: Room, known: Room | undefined): number {
    const { last } = room.line;
    const memory = this.#memory?.userId === this.#myId ? this.#memory : undefined;
    const remembered = memory?.readSeqs[room.id];
    if (remembered !== undefined) return Math.min(Math.max(remembered, room.readSeq), last);
    if (room.kind === "public") return last;
    return Math.min(memory || known ? room.readSeq : last, last);
  }

  /** Once per login: back into the public rooms of the last visit. */
  #rejoin(): void {
    const memory = this.#memory;
    if (memory?.userId !== this.#myId) return;
    this.#memory = { ...memory, publicRooms: [] };
    for (const roomId of memory.publicRooms.slice(0, REJOIN_ROOMS_MAX)) {
      if (!this.#rooms.get(roomId)?.joined) this.#controls.push({ type: "join", roomId, cursor: undefined });
    }
  }

  #handlePage(room: Room, purpose: HistoryPurpose, page: HistoryFrame, now: number): void {
    const { epoch, messages, hasMoreMessages } = page;
    if (purpose === "older") room.olderLoading = false;
    if (purpose === "newest") {
      room.replace(epoch ?? room.line.epoch, messages.at(-1)?.seq ?? room.line.last, messages, hasMoreMessages, this.#myId);
      return;
    }
    // A page of another epoch does not continue ours; the `cut` that announces the change brings what is needed.
    if (epoch !== undefined && room.line.epoch !== undefined && epoch !== room.line.epoch) return;
    if (epoch !== undefined) room.line.learnEpoch(epoch);
    if (purpose === "older") {
      room.line.prepend(messages, hasMoreMessages);
      return;
    }
    const helped = room.extend(messages, this.#myId);
    if (helped && hasMoreMessages) this.#history.ask(room.id, "newer", now);
    else if (!helped && room.line.hole) this.#askAgain(room, now + RETRY_MIN_MS);
    this.#askHole(room, now);
    this.#trim(room);
  }

  /** The same person may log in again on this page. */
  #remember(): Memory {
    const joined = [...this.#rooms.values()].filter((room) => room.joined);
    return {
      userId: this.#myId,
      readSeqs: Object.fromEntries(joined.map((room) => [room.id, room.readSeq])),
      publicRooms: joined.filter((room) => room.kind === "public").map((room) => room.id),
    };
  }

  #askHole(room: Room, now: number): void {
    const { hole } = room.line;
    if (!hole || this.#history.isAsked(room.id, "newer") || this.#history.isAsked(room.id, "newest")) return;
    this.options.log(`hole in ${room.id}: after ${hole.after}, before ${hole.before}`);
    this.#history.ask(room.id, "newer", now);
  }

  /** The last answer did not help; after some of them only a fresh start does. */
  #askAgain(room: Room, notBefore: number): void {
    room.gapTries += 1;
    this.#history.ask(room.id, room.gapTries >= GAP_TRIES_MAX ? "newest" : "newer", notBefore);
  }

  #exit(room: Room): void {
    this.#history.forget(room.id);
    room.exit();
    this.touch(room);
  }

  #add(id: string): Room {
    const room = new Room(id, this.options.random);
    this.#rooms.set(id, room);
    return room;
  }

  #trim(room: Room): void {
    room.trim(room.id === this.#openId);
    room.touch();
  }
}

function anchorOf(room: Room, purpose: HistoryPurpose): HistoryAnchor {
  const { first, last } = room.line;
  if (purpose === "newer") return { afterSeq: last };
  return purpose === "older" && first ? { firstMessageId: first.id } : "newest";
}
