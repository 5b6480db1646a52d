/** Writing: a message of ours is stored once, in its order, and its author sees what became of it. */
import { describe, expect, it } from "vitest";
import { FRAME_MESSAGES_MAX, OUTBOX_MESSAGES_MAX, REQUEST_TIMEOUT_MS } from "./limits";
import { ann, bob, ClientBench, GENERAL, type WireFrame, wireMessage, wireMessages, wireRoom } from "./testing";

function write(bench: ClientBench, ...contents: string[]): void {
  for (const content of contents) bench.run((client, now) => client.send(GENERAL, content, now));
}

function acknowledge(bench: ClientBench, ...pairs: [clientMessageId: string, seq: number][]): void {
  const messages = pairs.map(([clientMessageId, seq]) => ({ clientMessageId, id: wireMessage(seq).id, seq, timestamp: 1 }));
  bench.receive("ack", { roomId: GENERAL, messages });
}

function refuse(bench: ClientBench, fields: object = {}): void {
  bench.receive("error", { code: "X", message: "refused", requestType: "clientMessages", roomId: GENERAL, ...fields });
}

function ids(frame: WireFrame | undefined): string[] {
  return ((frame?.payload["messages"] ?? []) as { clientMessageId: string }[]).map((message) => message.clientMessageId);
}

function states(bench: ClientBench): string[] {
  return bench.room().pending.map((message) => `${message.content}:${message.state}`);
}

describe("sending", () => {
  it("shows a message at once, then as sent, then as part of the room", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "hi");
    expect(bench.takeSent()).toEqual([
      { type: "clientMessages", payload: { roomId: GENERAL, messages: [{ content: "hi", clientMessageId: "t-1" }] } },
    ]);
    expect(states(bench)).toEqual(["hi:sending"]);
    acknowledge(bench, ["t-1", 1]);
    expect(states(bench)).toEqual(["hi:sent"]);
    bench.live(wireMessage(1, "hi", ann));
    expect(states(bench)).toEqual([]);
    expect(bench.seqs()).toEqual([1]);
  });

  it("does not show it twice when the room is quicker than the acknowledgement", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "hi");
    bench.live(wireMessage(1, "hi", ann));
    expect(states(bench)).toEqual([]);
    acknowledge(bench, ["t-1", 1]);
    expect(states(bench)).toEqual([]);
    expect(bench.client.pollTimeout()).toBeUndefined();
  });

  it("the same words from our other window hide it only until the acknowledgement", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "hi");
    bench.live(wireMessage(1, "hi", ann));
    acknowledge(bench, ["t-1", 2]);
    expect(states(bench)).toEqual(["hi:sent"]);
    bench.live(wireMessage(2, "hi", ann));
    expect(states(bench)).toEqual([]);
  });

  it("the same words from somebody else hide nothing", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "hi");
    bench.live(wireMessage(1, "hi", bob));
    expect(states(bench)).toEqual(["hi:sending"]);
  });

  it("keeps one frame in flight and lets the rest ride together", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, ...Array.from({ length: FRAME_MESSAGES_MAX + 2 }, (_, index) => `m${index}`));
    expect(bench.takeSent().map(ids)).toEqual([["t-1"]]);
    acknowledge(bench, ["t-1", 1]);
    const [second] = bench.takeSent();
    expect(ids(second)).toHaveLength(FRAME_MESSAGES_MAX);
    expect(ids(second).at(0)).toBe("t-2");
  });

  it("a frame stays small in bytes, but always takes one message", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "first", "x".repeat(4096), "y".repeat(4096), "z");
    acknowledge(bench, ["t-1", 1]);
    expect(bench.takeSent().map(ids)).toEqual([["t-1"], ["t-2", "t-3"]]);
  });

  it("refuses when too many wait", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    for (let index = 0; index < OUTBOX_MESSAGES_MAX; index += 1) write(bench, "m");
    bench.run((client, now) => expect(client.send(GENERAL, "one more", now)).toBe(false));
  });
});

describe("after a reconnect", () => {
  it("repeats what was not acknowledged under the same keys, in order, and only that", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "a");
    acknowledge(bench, ["t-1", 1]);
    write(bench, "b", "c");
    bench.takeSent();
    bench.event({ type: "closed", code: 1006 });
    write(bench, "d");
    expect(bench.takeSent()).toEqual([]);
    bench.advance(500);
    bench.event({ type: "opened" });
    bench.hello(wireRoom([wireMessage(1, "a", ann), wireMessage(2, "b", ann)]));
    const [resume, frame] = bench.takeSent();
    expect(resume?.type).toBe("resume");
    expect(ids(frame)).toEqual(["t-2", "t-3", "t-4"]);
    // "b" is in the room already: its copy is not shown although the acknowledgement is still to come.
    expect(states(bench)).toEqual(["c:sending", "d:sending"]);
    acknowledge(bench, ["t-2", 2], ["t-3", 3], ["t-4", 4]);
    bench.live(wireMessage(3, "c", ann), wireMessage(4, "d", ann));
    expect(states(bench)).toEqual([]);
    expect(bench.room().messages.map((message) => message.content)).toEqual(["a", "b", "c", "d"]);
  });

  it("an old message with the same words is not taken for the new one", () => {
    const bench = ClientBench.inRooms(wireRoom([wireMessage(1, "ok", ann)]));
    write(bench, "ok");
    bench.reconnect();
    bench.hello(wireRoom([wireMessage(1, "ok", ann)], { cut: true }));
    expect(states(bench)).toEqual(["ok:sending"]);
  });

  it("survives an expired session when the same person logs in", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 2)));
    bench.event({ type: "closed", code: 1008 });
    write(bench, "late");
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.takeSent();
    bench.hello(wireRoom(wireMessages(1, 2)));
    expect(bench.takeSent().map(ids)).toEqual([["t-1"]]);
  });

  it("silence after a message counts as a dead connection", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "a");
    bench.advance(REQUEST_TIMEOUT_MS);
    expect(bench.actions).toEqual(["close"]);
    expect(states(bench)).toEqual(["a:sending"]);
  });
});

describe("error frames", () => {
  it("a refused message fails beside its reason; the next ones go on", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "bad", "good");
    bench.takeSent();
    refuse(bench, { clientMessageId: "t-1" });
    expect(bench.room().pending[0]).toMatchObject({ content: "bad", state: "failed", error: "refused" });
    expect(bench.takeSent().map(ids)).toEqual([["t-2"]]);
  });

  it("a message refused for now waits as long as it was told, and so do those behind it", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "a", "b");
    bench.takeSent();
    refuse(bench, { retryAfterMs: 4000, clientMessageId: "t-1" });
    refuse(bench, { retryAfterMs: 9000, clientMessageId: "t-1" });
    expect(bench.room().pending[0]).toMatchObject({ state: "sending", error: "refused" });
    bench.advance(3999);
    expect(bench.takeSent()).toEqual([]);
    bench.advance(1);
    expect(bench.takeSent().map(ids)).toEqual([["t-1", "t-2"]]);
  });

  it("a frame refused for good is taken apart, so that only the guilty one fails", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "first", "a", "bad", "c");
    acknowledge(bench, ["t-1", 1]);
    bench.takeSent();
    // The server tells it once for each message of the frame.
    for (const clientMessageId of ["t-2", "t-3", "t-4"]) refuse(bench, { clientMessageId });
    expect(bench.takeSent().map(ids)).toEqual([["t-2"]]);
    acknowledge(bench, ["t-2", 2]);
    expect(bench.takeSent().map(ids)).toEqual([["t-3"]]);
    refuse(bench);
    expect(bench.takeSent().map(ids)).toEqual([["t-4"]]);
    acknowledge(bench, ["t-4", 3]);
    expect(states(bench)).toEqual(["first:sent", "a:sent", "bad:failed", "c:sent"]);
  });

  it("an error for a message that is not on its way changes nothing", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "a");
    refuse(bench, { clientMessageId: "t-99" });
    expect(states(bench)).toEqual(["a:sending"]);
  });

  it("a failed message can be tried again or given up", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    write(bench, "a");
    refuse(bench);
    bench.takeSent();
    bench.run((client) => client.retry(GENERAL, "t-1"));
    expect(bench.takeSent().map(ids)).toEqual([["t-1"]]);
    refuse(bench);
    bench.run((client) => client.discard(GENERAL, "t-1"));
    expect(states(bench)).toEqual([]);
  });

  it("an error that belongs nowhere becomes a notice", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("error", { code: "X", message: "something else", requestType: "" });
    expect(bench.client.view().notice).toBe("something else");
  });
});

describe("rooms", () => {
  const created = { roomId: "room-9", roomName: "dpdk", creatorId: ann.id, creatorUsername: ann.username };

  it("a room of ours is created, a taken name is told", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.run((client) => client.createRoom("dpdk"));
    expect(bench.takeSent()).toEqual([{ type: "clientCreateRoom", payload: { roomName: "dpdk" } }]);
    bench.receive("serverCreateRoom", created);
    expect(bench.client.view().creation).toEqual({ name: "created", roomName: "dpdk", roomId: "room-9" });
    expect(bench.room("room-9").joined).toBe(true);
    bench.run((client) => client.createRoom("dpdk"));
    bench.receive("serverCreateRoom", { roomId: "", roomName: "", creatorId: "", creatorUsername: "" });
    expect(bench.client.view().creation).toEqual({ name: "taken", roomName: "dpdk" });
  });

  it("a room of somebody else appears and takes messages from its first", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("serverCreateRoom", { ...created, creatorId: bob.id });
    bench.receive("serverCreateRoom", { ...created, creatorId: bob.id });
    bench.receive("serverMessages", { roomId: "room-9", messages: [wireMessage(1)] });
    expect(bench.room("room-9")).toMatchObject({ unread: 1, name: "dpdk" });
    // Its epoch is not known yet, so it is not resumed; the next hello brings it as a new one.
    bench.reconnect();
    expect(bench.takeSent()[0]?.payload["rooms"]).toEqual([{ roomId: GENERAL, epoch: 1, seq: 0 }]);
    bench.hello(wireRoom([]), wireRoom(wireMessages(1, 3), { id: "room-9" }));
    expect(bench.seqs("room-9")).toEqual([1, 2, 3]);
  });

  it("a public room is joined by opening it, resumed, and left on request", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("serverCreateRoom", { ...created, creatorId: bob.id, kind: "public" });
    expect(bench.room("room-9").joined).toBe(false);
    bench.run((client) => client.openRoom("room-9"));
    bench.run((client) => client.openRoom("room-9"));
    expect(bench.takeSent()).toEqual([{ type: "join", payload: { roomId: "room-9" } }]);
    const room = wireRoom(wireMessages(1, 2), { id: "room-9", kind: "public", epoch: 5 });
    bench.receive("joined", room);
    expect(bench.room("room-9")).toMatchObject({ joined: true, unread: 0 });
    bench.reconnect();
    expect(bench.takeSent()[0]?.payload["rooms"]).toContainEqual({ roomId: "room-9", epoch: 5, seq: 2 });
    bench.hello(wireRoom([]), { ...room, messages: [wireMessage(3)], lastSeq: 3 });
    expect(bench.seqs("room-9")).toEqual([1, 2, 3]);
    bench.run((client) => client.leaveRoom("room-9"));
    expect(bench.takeSent()).toEqual([{ type: "leave", payload: { roomId: "room-9" } }]);
    expect(bench.room("room-9")).toMatchObject({ joined: false, messages: [] });
  });

  it("a refused join shows its reason and is repeated when allowed", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("serverCreateRoom", { ...created, creatorId: bob.id, kind: "public" });
    bench.run((client) => client.openRoom("room-9"));
    bench.takeSent();
    bench.receive("error", { code: "X", message: "busy", requestType: "join", roomId: "room-9", retryAfterMs: 1500 });
    expect(bench.room("room-9").joinError).toBe("busy");
    bench.advance(1500);
    expect(bench.takeSent()).toEqual([{ type: "join", payload: { roomId: "room-9" } }]);
  });

  it("a lost connection ends the wait for a new room", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.run((client) => client.createRoom("dpdk"));
    bench.event({ type: "closed", code: 1006 });
    expect(bench.client.view().creation.name).toBe("failed");
  });
});
