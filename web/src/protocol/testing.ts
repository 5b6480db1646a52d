/** What the tests of this folder share: a seeded generator, frames with names, a client on a virtual clock. */
import type { SocketAction } from "./connection";
import { Client, type ClientEvent } from "./client";
import type { Memory } from "./rooms";
import type { RoomView } from "./view";

/** mulberry32: small, seeded, good enough to shuffle events. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const ann = { id: "u-ann", username: "ann" };
export const bob = { id: "u-bob", username: "bob" };
export const GENERAL = "room-001";

export interface WireMessage {
  id: string;
  seq: number;
  content: string;
  timestamp: number;
  user: { id: string; username: string };
}

export function wireMessage(seq: number, content = `message ${seq}`, user = bob): WireMessage {
  return { id: `${1_690_000_000_000 + seq}-${seq}`, seq, content, timestamp: 1_690_000_000_000 + seq, user };
}

/** The messages `from … to`, both included. */
export function wireMessages(from: number, to: number): WireMessage[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => wireMessage(from + index));
}

export interface WireRoom {
  id: string;
  name: string;
  creator_id: string;
  kind?: string;
  epoch: number;
  lastSeq: number;
  cut?: boolean;
  hasMoreMessages: boolean;
  messages: WireMessage[];
}

export function wireRoom(messages: WireMessage[], fields: Partial<WireRoom> = {}): WireRoom {
  const lastSeq = messages.at(-1)?.seq ?? 0;
  const hasMoreMessages = (messages[0]?.seq ?? 1) > 1;
  return { id: GENERAL, name: "General", creator_id: "", kind: "default", epoch: 1, lastSeq, hasMoreMessages, messages, ...fields };
}

export interface WireFrame {
  type: string;
  payload: Record<string, unknown>;
}

/** A client and the shell around it: a clock that is moved by hand, a wire that is a list. */
export class ClientBench {
  now = 1_000;
  readonly client: Client;
  readonly sent: WireFrame[] = [];
  readonly actions: SocketAction[] = [];
  readonly logs: string[] = [];

  constructor(random: () => number = () => 0.5, memory?: Partial<Memory>) {
    const whole = memory && { userId: ann.id, readSeqs: {}, publicRooms: [], ...memory };
    this.client = new Client({ random, idPrefix: "t", memory: whole });
  }

  /** Connects, and answers `resume` with these rooms. */
  static inRooms(...rooms: WireRoom[]): ClientBench {
    const bench = new ClientBench();
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.hello(...rooms);
    bench.sent.length = 0;
    bench.actions.length = 0;
    return bench;
  }

  run(command: (client: Client, now: number) => void): void {
    command(this.client, this.now);
    this.#drive();
  }

  event(event: ClientEvent): void {
    this.client.handle(event, this.now);
    this.#drive();
  }

  receive(type: string, payload: object): void {
    this.event({ type: "text", text: JSON.stringify({ type, payload }) });
  }

  hello(...rooms: WireRoom[]): void {
    this.receive("hello", { me: ann, rooms });
  }

  live(...messages: WireMessage[]): void {
    this.receive("serverMessages", { roomId: GENERAL, messages });
  }

  history(messages: WireMessage[], hasMoreMessages: boolean, epoch = 1): void {
    this.receive("serverRoomHistory", { roomId: GENERAL, name: "", epoch, hasMoreMessages, messages });
  }

  /** Lets time pass; timers fire at their moment. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (let turns = 0; ; turns += 1) {
      if (turns > 1000) throw new Error("the client asks for ticks without end");
      const due = this.client.pollTimeout();
      if (due === undefined || due > end) break;
      this.now = Math.max(this.now, due);
      this.event({ type: "tick" });
    }
    this.now = end;
  }

  /** Closes the socket with this code and waits until the client opens the next one. */
  reconnect(code = 1006): void {
    this.event({ type: "closed", code });
    if (this.state === "reconnecting") this.advance((this.client.pollTimeout() ?? this.now) - this.now);
    this.event({ type: "opened" });
  }

  get state(): string {
    return this.client.view().connection.name;
  }

  room(id = GENERAL): RoomView {
    const room = this.client.view().rooms.find((candidate) => candidate.id === id);
    if (!room) throw new Error(`no room ${id}`);
    return room;
  }

  seqs(id = GENERAL): number[] {
    return this.room(id).messages.map((message) => message.seq);
  }

  /** Frames sent since the last call. */
  takeSent(): WireFrame[] {
    return this.sent.splice(0);
  }

  #drive(): void {
    for (let action = this.client.pollAction(); action; action = this.client.pollAction()) this.actions.push(action);
    for (let text = this.client.pollTransmit(this.now); text; text = this.client.pollTransmit(this.now)) {
      this.sent.push(JSON.parse(text) as WireFrame);
    }
    for (let line = this.client.pollLog(); line; line = this.client.pollLog()) this.logs.push(line);
  }
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}
