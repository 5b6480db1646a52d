/**
 * A client against a model of the server on a network that loses, repeats, cuts and refuses.
 *
 * A seed becomes a sequence of steps; after each one the room on the screen is a piece of the server's log without
 * holes, and when the faults end both agree: nothing missing, nothing doubled, our messages in the order written.
 */
import { expect, it } from "vitest";
import { ann, ClientBench, GENERAL, range, seededRandom, type WireFrame, type WireMessage, wireMessage, wireRoom } from "./testing";

const SEEDS = range(1, 80);
const STEPS = 300;
const PAGE = 20;

it.each(SEEDS)("seed %i", (seed) => {
  const world = new World(seed);
  for (let step = 0; step < STEPS; step += 1) {
    world.step();
    world.check();
  }
  world.settle();
});

/** One room's log and the rule of idempotency: what a server must keep, and no more. */
class ModelServer {
  readonly log: WireMessage[] = [];
  readonly #stored = new Map<string, WireMessage>();
  epoch = 1;

  write(content: string, user?: typeof ann): WireMessage {
    const message = wireMessage(this.log.length + 1, content, user);
    this.log.push(message);
    return message;
  }

  /** Stores a frame; returns what is new and what is acknowledged. */
  store(messages: { content: string; clientMessageId: string }[]): { added: WireMessage[]; acks: object[] } {
    const added: WireMessage[] = [];
    const acks = messages.map(({ content, clientMessageId }) => {
      let message = this.#stored.get(clientMessageId);
      if (!message) {
        message = this.write(content, ann);
        this.#stored.set(clientMessageId, message);
        added.push(message);
      }
      return { clientMessageId, id: message.id, seq: message.seq, timestamp: message.timestamp };
    });
    return { added, acks };
  }

  after(seq: number): WireMessage[] {
    return this.log.slice(seq);
  }

  newest(): WireMessage[] {
    return this.log.slice(-PAGE);
  }
}

class World {
  readonly #random: () => number;
  readonly #bench: ClientBench;
  readonly #server = new ModelServer();
  readonly #written: string[] = [];
  /** Frames on their way; both are lost with the connection. */
  #toClient: WireFrame[] = [];
  #toServer: WireFrame[] = [];
  #isConnected = false;
  #hasFaults = true;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.#bench = new ClientBench(this.#random);
    this.#bench.run((client, now) => client.connect(now));
    this.#bench.run((client) => client.openRoom(GENERAL));
  }

  step(): void {
    const dice = this.#random();
    if (dice < 0.3) this.#deliverToClient();
    else if (dice < 0.55) this.#deliverToServer();
    else if (dice < 0.7) this.#push([this.#server.write("theirs")]);
    else if (dice < 0.85) this.#writeOwn();
    else if (dice < 0.9) this.#bench.run((client, now) => client.loadOlder(GENERAL, now));
    else if (dice < 0.95) this.#bench.advance(Math.floor(this.#random() * 3000));
    else if (dice < 0.98) this.#lose();
    else this.#cut();
    this.#turn();
  }

  /** The room on the screen is a piece of the log, and a message of ours is not shown twice. */
  check(): void {
    const room = this.#bench.client.view().rooms[0];
    if (!room) return;
    const first = room.messages[0]?.seq ?? 1;
    expect(room.messages.map((message) => message.id)).toEqual(
      this.#server.log.slice(first - 1, first - 1 + room.messages.length).map((message) => message.id),
    );
    const shown = [...room.messages, ...room.pending].map((message) => message.content).filter((content) => content.startsWith("mine"));
    expect(new Set(shown).size).toBe(shown.length);
  }

  settle(): void {
    this.#hasFaults = false;
    this.#runUntilQuiet();
    // A push that was lost at the very end shows only when something later comes.
    this.#push([this.#server.write("the last word")]);
    this.#runUntilQuiet();
    const room = this.#bench.room();
    expect(this.#bench.state).toBe("open");
    expect(room.messages.at(-1)?.seq).toBe(this.#server.log.length);
    expect(room.pending).toEqual([]);
    const stored = this.#server.log.filter((message) => message.user.id === ann.id).map((message) => message.content);
    expect(stored).toEqual(this.#written);
  }

  /** Quiet: nothing on the wire for longer than any timer of the client waits. */
  #runUntilQuiet(): void {
    for (let idle = 0; idle < 70; ) {
      if (this.#toClient.length > 0) this.#deliverToClient();
      else if (this.#toServer.length > 0) this.#deliverToServer();
      else {
        this.#bench.advance(500);
        idle += 1;
      }
      const before = this.#toServer.length;
      this.#turn();
      if (this.#toServer.length > before) idle = 0;
      this.check();
    }
  }

  #writeOwn(): void {
    const content = `mine ${this.#written.length + 1}`;
    this.#bench.run((client, now) => {
      if (client.view().rooms.length > 0 && client.send(GENERAL, content, now)) this.#written.push(content);
    });
  }

  /** Carries out what the client decided. */
  #turn(): void {
    for (const action of this.#bench.actions.splice(0)) {
      this.#toClient = [];
      this.#toServer = [];
      this.#isConnected = action === "connect";
      if (action === "connect") this.#bench.event({ type: "opened" });
    }
    const sent = this.#bench.takeSent();
    if (this.#isConnected) this.#toServer.push(...sent);
  }

  #push(messages: WireMessage[]): void {
    if (!this.#isConnected || messages.length === 0) return;
    const frame = { type: "serverMessages", payload: { roomId: GENERAL, messages } };
    // A hole and a repeat: the gateway promises neither, the client must survive both.
    if (this.#hasFaults && this.#random() < 0.1) return;
    this.#toClient.push(frame);
    if (this.#hasFaults && this.#random() < 0.1) this.#toClient.push(frame);
  }

  #deliverToClient(): void {
    const frame = this.#toClient.shift();
    if (frame) this.#bench.receive(frame.type, frame.payload);
  }

  #deliverToServer(): void {
    const frame = this.#toServer.shift();
    if (!frame) return;
    const { type, payload } = frame;
    if (type === "resume") this.#answerResume(payload["rooms"] as { epoch: number; seq: number }[]);
    else if (type === "requestRoomHistory") this.#answerHistory(payload);
    else this.#answerMessages(payload);
  }

  #answerResume([cursor]: { epoch: number; seq: number }[]): void {
    const { epoch, log } = this.#server;
    const missing = cursor ? this.#server.after(cursor.seq) : [];
    const isResumed = cursor?.epoch === epoch && missing.length <= PAGE * 2;
    const room = wireRoom(isResumed ? missing : this.#server.newest(), { epoch, lastSeq: log.length, cut: cursor !== undefined && !isResumed });
    this.#toClient.push({ type: "hello", payload: { me: ann, rooms: [room] } });
  }

  #answerHistory({ afterSeq, firstMessageId, count }: Record<string, unknown>): void {
    if (this.#hasFaults && this.#random() < 0.2) return this.#refuse("requestRoomHistory");
    const { epoch, log } = this.#server;
    const anchor = log.findIndex((message) => message.id === firstMessageId);
    const end = anchor < 0 ? log.length : anchor;
    const isForward = typeof afterSeq === "number";
    const start = isForward ? afterSeq : Math.max(0, end - (count as number));
    const messages = isForward ? log.slice(afterSeq, afterSeq + PAGE) : log.slice(start, end);
    const hasMoreMessages = isForward ? afterSeq + PAGE < log.length : start > 0;
    this.#toClient.push({ type: "serverRoomHistory", payload: { roomId: GENERAL, name: "", epoch, hasMoreMessages, messages } });
  }

  #answerMessages(payload: Record<string, unknown>): void {
    if (this.#hasFaults && this.#random() < 0.2) return this.#refuse("clientMessages");
    const { added, acks } = this.#server.store(payload["messages"] as { content: string; clientMessageId: string }[]);
    const ack = { type: "ack", payload: { roomId: GENERAL, messages: acks } };
    const ackFirst = this.#random() < 0.5;
    if (ackFirst) this.#toClient.push(ack);
    this.#push(added);
    if (!ackFirst) this.#toClient.push(ack);
  }

  #refuse(requestType: string): void {
    const payload = { code: "UNAVAILABLE", message: "try later", requestType, roomId: GENERAL, retryAfterMs: 100 };
    this.#toClient.push({ type: "error", payload });
  }

  #lose(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    this.#toClient = [];
    this.#toServer = [];
    const codes = [1001, 1006, 1011, 1012, 1013, 4429];
    this.#bench.event({ type: "closed", code: codes[Math.floor(this.#random() * codes.length)] as number });
  }

  #cut(): void {
    if (!this.#isConnected) return;
    const isRestored = this.#random() < 0.3;
    if (isRestored) this.#server.epoch += 1;
    const { epoch, log } = this.#server;
    const payload = { roomId: GENERAL, epoch, lastSeq: log.length, hasMoreMessages: log.length > PAGE, messages: this.#server.newest() };
    this.#toClient.push({ type: "cut", payload });
  }
}
