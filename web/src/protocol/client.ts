/**
 * The browser client as a state machine: events and commands in, frames, actions and views out.
 *
 * No sockets, timers, clock or DOM here; time comes as an argument and randomness from the options. Calling order
 * after every command or `handle`: `pollAction` until empty, `pollTransmit` until empty, then arm one timer for
 * `pollTimeout`. `src/shell` does that in a browser, `testing.ts` in tests.
 *
 * What it keeps: a room's messages are shown in order, once, without holes; a message of ours is repeated under the
 * same `clientMessageId` until it is acknowledged; every list has a bound (`limits.ts`).
 */
import type { Random } from "./backoff";
import { Connection, type SocketAction } from "./connection";
import { decodeFrame } from "./decode";
import { type ClientFrame, encodeFrame, type ErrorFrame, type ServerCreateRoom, type ServerFrame, type User } from "./frames";
import { RETRY_MIN_MS, WAKE_PROBE_AFTER_MS } from "./limits";
import { type Memory, Rooms } from "./rooms";
import type { ClientView, ConnectionView, RoomCreation } from "./view";

/** Everything that can wake the client. */
export type ClientEvent =
  | { readonly type: "opened" }
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "closed"; readonly code: number }
  | { readonly type: "tick" }
  /** The machine has a network again. */
  | { readonly type: "online" }
  /** The page is looked at again after it was hidden. */
  | { readonly type: "woke" };

export interface ClientOptions {
  readonly random: Random;
  /** Makes our `clientMessageId`s unique among all browsers of a user; at most 40 characters of ASCII. */
  readonly idPrefix: string;
  readonly memory: Memory | undefined;
}

export class Client {
  readonly #connection: Connection;
  readonly #rooms: Rooms;
  /** Frames that go before those of the rooms: `resume` alone before `hello`, later the creation of rooms. */
  #controls: ClientFrame[] = [];
  #logs: string[] = [];
  #me: User | undefined;
  #creation: RoomCreation = { name: "idle" };
  #notice: string | undefined;
  #heardAt = 0;
  #ids = 0;
  #view: ClientView | undefined;

  constructor(private readonly options: ClientOptions) {
    this.#connection = new Connection(options.random);
    this.#rooms = new Rooms({ ...options, log: (line) => this.#log(line) });
  }

  // ---- commands ----

  /** Opens the connection: at start, after a login, or at once instead of waiting. */
  connect(now: number): void {
    this.#connection.connect(now);
    this.#changed();
  }

  /** A logout is under way (`true`) or has failed (`false`). */
  leave(leaving: boolean): void {
    this.#connection.leave(leaving);
  }

  /** The logout succeeded: nothing of this person stays. */
  signOut(): void {
    this.#connection.signOut();
    this.#forgetPerson();
    this.#afterEvent();
  }

  /** The room on the screen; `undefined` when none is. */
  openRoom(roomId: string | undefined): void {
    this.#rooms.open(roomId, this.#isOpen);
    this.#changed();
  }

  leaveRoom(roomId: string): void {
    this.#rooms.leave(roomId);
    this.#changed();
  }

  /** Queues a message; `false` when too many wait already. */
  send(roomId: string, content: string, now: number): boolean {
    const room = this.#rooms.get(roomId);
    if (!room || room.outbox.isFull) return false;
    this.#ids += 1;
    room.outbox.add(`${this.options.idPrefix}-${this.#ids}`, content, now);
    this.#rooms.touch(room);
    this.#changed();
    return true;
  }

  retry(roomId: string, clientMessageId: string): void {
    const room = this.#rooms.get(roomId);
    if (!room) return;
    room.outbox.retry(clientMessageId);
    this.#rooms.touch(room);
    this.#changed();
  }

  discard(roomId: string, clientMessageId: string): void {
    const room = this.#rooms.get(roomId);
    if (!room) return;
    room.outbox.discard(clientMessageId);
    this.#rooms.touch(room);
    this.#changed();
  }

  /** The reader scrolled up, or asks again after a failure. */
  loadOlder(roomId: string, now: number): void {
    if (this.#isOpen) this.#rooms.loadOlder(roomId, now);
    this.#changed();
  }

  markRead(roomId: string, seq: number): void {
    const room = this.#rooms.get(roomId);
    if (!room?.markRead(seq)) return;
    this.#rooms.touch(room);
    this.#changed();
  }

  createRoom(roomName: string): void {
    if (this.#creation.name === "asking") return;
    if (this.#isOpen) {
      this.#controls.push({ type: "clientCreateRoom", roomName });
      this.#creation = { name: "asking", roomName };
    } else {
      this.#failCreation(roomName, "Not connected. Please try again in a moment.", undefined);
    }
    this.#changed();
  }

  /** The dialog was opened or closed: earlier results are of no interest. */
  resetCreation(): void {
    if (this.#creation.name !== "asking") this.#creation = { name: "idle" };
    this.#changed();
  }

  notify(message: string | undefined): void {
    this.#notice = message;
    this.#changed();
  }

  // ---- events ----

  handle(event: ClientEvent, now: number): void {
    switch (event.type) {
      case "opened":
        this.#controls = [{ type: "resume", rooms: this.#rooms.takeCursors() }];
        break;
      case "text":
        this.#heardAt = now;
        this.#handleText(event.text, now);
        break;
      case "closed":
        this.#connection.handleClosed(event.code, now);
        break;
      case "tick":
        this.#connection.handleTick(now);
        this.#rooms.handleTick(now);
        if (this.#isOpen && this.#rooms.isOverdue(now)) this.#connection.abandon(now);
        break;
      case "online":
        this.#connection.handleOnline(now);
        break;
      case "woke":
        this.#connection.handleOnline(now);
        // A socket may have died while the machine slept.
        if (this.#isOpen && now - this.#heardAt >= WAKE_PROBE_AFTER_MS) this.#rooms.probe(now);
        break;
    }
    this.#afterEvent();
  }

  // ---- decisions ----

  pollAction(): SocketAction | undefined {
    return this.#connection.pollAction();
  }

  pollTransmit(now: number): string | undefined {
    const frame = this.#nextFrame(now);
    if (!frame) return undefined;
    this.#changed();
    return encodeFrame(frame);
  }

  /** When to call `handle({type: "tick"})`, if nothing happens before. */
  pollTimeout(): number | undefined {
    const connection = this.#connection.pollTimeout();
    const rooms = this.#isOpen ? this.#rooms.pollTimeout() : undefined;
    return connection !== undefined && rooms !== undefined ? Math.min(connection, rooms) : (connection ?? rooms);
  }

  /** A line for the console: something the server or the network did that should not happen. */
  pollLog(): string | undefined {
    return this.#logs.shift();
  }

  view(): ClientView {
    this.#view ??= {
      connection: this.#connectionView(),
      me: this.#me,
      rooms: this.#rooms.views(),
      creation: this.#creation,
      notice: this.#notice,
    };
    return this.#view;
  }

  // ---- frames ----

  #handleText(text: string, now: number): void {
    const decoded = decodeFrame(text);
    if (decoded.ok) this.#handleFrame(decoded.frame, now);
    else this.#log(`frame ignored: ${decoded.reason}`);
  }

  #handleFrame(frame: ServerFrame, now: number): void {
    switch (frame.type) {
      case "hello":
        this.#handleHello(frame, now);
        return;
      case "joined":
        this.#rooms.handleJoined(frame.room, now);
        return;
      case "serverCreateRoom":
        this.#handleCreated(frame.created);
        return;
      case "serverRoomHistory":
        this.#rooms.handleHistory(frame, now);
        return;
      case "error":
        this.#handleError(frame, now);
        return;
      case "draining":
        this.#connection.handleDraining(frame.reconnectMinMs, frame.reconnectMaxMs, now);
        return;
      default:
        this.#rooms.handleFrame(frame, now);
    }
  }

  #handleHello({ me, rooms }: Extract<ServerFrame, { type: "hello" }>, now: number): void {
    if (this.#me && this.#me.id !== me.id) this.#forgetPerson();
    this.#me = me;
    this.#connection.handleHello(now);
    const [lost] = this.#rooms.handleHello(me, rooms, now);
    if (lost !== undefined) this.#notice = `The room “${lost}” is gone, and what you wrote there was not sent.`;
  }

  #handleCreated(created: ServerCreateRoom["created"]): void {
    const asked = this.#creation.name === "asking" ? this.#creation.roomName : undefined;
    if (created === "taken") {
      if (asked !== undefined) this.#creation = { name: "taken", roomName: asked };
      return;
    }
    this.#rooms.handleCreated(created);
    if (asked === created.roomName && created.creatorId === this.#me?.id) {
      this.#creation = { name: "created", roomName: asked, roomId: created.roomId };
    }
  }

  #handleError(error: ErrorFrame, now: number): void {
    this.#log(`error ${error.code} for ${error.requestType || "an unknown request"}: ${error.message}`);
    switch (error.requestType) {
      case "clientMessages":
        this.#rooms.handleMessagesError(error, now);
        return;
      case "requestRoomHistory":
        this.#rooms.handleHistoryError(error, now);
        return;
      case "join":
        this.#rooms.handleJoinError(error, now);
        return;
      case "clientCreateRoom":
        if (this.#creation.name === "asking") {
          const retryAt = error.retryAfterMs === undefined ? undefined : now + Math.max(error.retryAfterMs, RETRY_MIN_MS);
          this.#failCreation(this.#creation.roomName, error.message, retryAt);
        }
        return;
      default:
        this.#notice = error.message;
    }
  }

  #nextFrame(now: number): ClientFrame | undefined {
    if (this.#isOpen) return this.#controls.shift() ?? this.#rooms.pollFrame(now);
    // Before `hello` the server expects one frame only.
    return this.#controls[0]?.type === "resume" ? this.#controls.shift() : undefined;
  }

  // ---- state ----

  #afterEvent(): void {
    if (this.#connection.pollEnded()) this.#handleEnded();
    this.#changed();
  }

  #handleEnded(): void {
    this.#controls = [];
    this.#rooms.handleDisconnect();
    if (this.#connection.state.name === "signed-out") this.#rooms.handleSignedOut();
    if (this.#creation.name === "asking") {
      const message = "The connection was lost before the answer. Look whether the room exists, or try again.";
      this.#failCreation(this.#creation.roomName, message, undefined);
    }
  }

  #failCreation(roomName: string, message: string, retryAt: number | undefined): void {
    this.#creation = { name: "failed", roomName, message, retryAt };
  }

  #forgetPerson(): void {
    this.#rooms.clear();
    this.#me = undefined;
    this.#creation = { name: "idle" };
    this.#notice = undefined;
  }

  get #isOpen(): boolean {
    return this.#connection.state.name === "open";
  }

  #connectionView(): ConnectionView {
    const state = this.#connection.state;
    if (state.name !== "open") return state;
    return { name: this.#rooms.isLagging ? "lagging" : "open" };
  }

  #changed(): void {
    this.#view = undefined;
  }

  #log(line: string): void {
    // A page nobody looks at may collect lines without end.
    if (this.#logs.length < 100) this.#logs.push(line);
  }
}
