/** Reading: what arrives is shown in order, once, without holes, and within bounds. */
import { describe, expect, it } from "vitest";
import { AHEAD_MESSAGES_MAX, GAP_TRIES_MAX, IDLE_ROOM_MESSAGES_MAX, OPEN_ROOM_MESSAGES_MAX, REQUEST_TIMEOUT_MS } from "./limits";
import { ann, bob, ClientBench, GENERAL, range, wireMessage, wireMessages, wireRoom } from "./testing";

describe("live messages", () => {
  it("continue the room and drop repeats", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.live(...wireMessages(2, 5));
    bench.live(...wireMessages(4, 5));
    expect(bench.seqs()).toEqual(range(1, 5));
    expect(bench.takeSent()).toEqual([]);
  });

  it("above a hole wait until history closes it", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.live(wireMessage(6));
    bench.live(wireMessage(7));
    expect(bench.seqs()).toEqual(range(1, 3));
    expect(bench.takeSent()).toEqual([{ type: "requestRoomHistory", payload: { roomId: GENERAL, afterSeq: 3, count: 200 } }]);
    expect(bench.logs).toEqual(["hole in room-001: after 3, before 6"]);
    bench.history(wireMessages(4, 6), true);
    expect(bench.seqs()).toEqual(range(1, 7));
  });

  it("a hole that history cannot close ends in a fresh page", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.live(wireMessage(9));
    for (let tries = 0; tries < GAP_TRIES_MAX; tries += 1) {
      bench.history([], false);
      bench.advance(1000);
    }
    expect(bench.takeSent().at(-1)).toEqual({ type: "requestRoomHistory", payload: { roomId: GENERAL, firstMessageId: "", count: 50 } });
    bench.history(wireMessages(8, 10), true);
    expect(bench.seqs()).toEqual(range(8, 10));
    bench.live(wireMessage(11));
    expect(bench.seqs()).toEqual(range(8, 11));
  });

  it("what waits above a hole is bounded and nothing of it is lost", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 1)));
    bench.run((client) => client.openRoom(GENERAL));
    const last = AHEAD_MESSAGES_MAX + 500;
    bench.live(...wireMessages(3, last));
    bench.history(wireMessages(2, 2), true);
    let after = bench.seqs().at(-1) as number;
    expect(after).toBe(AHEAD_MESSAGES_MAX + 2);
    while (bench.takeSent().length > 0) {
      const page = wireMessages(after + 1, Math.min(last, after + 200));
      after = page.at(-1)?.seq ?? after;
      bench.history(page, after < last);
    }
    expect(bench.seqs()).toEqual(range(1, last));
  });

  it("an answer that never comes means a dead connection", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.live(wireMessage(6));
    bench.advance(REQUEST_TIMEOUT_MS - 1);
    expect(bench.state).toBe("open");
    bench.advance(1);
    expect(bench.actions).toEqual(["close"]);
    expect(bench.state).toBe("reconnecting");
  });

  it("bytes that are no frame change nothing", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.event({ type: "text", text: "test" });
    bench.receive("typing", { roomId: GENERAL });
    bench.receive("serverMessages", { roomId: "room-elsewhere", messages: wireMessages(1, 1) });
    expect(bench.seqs()).toEqual(range(1, 3));
    expect(bench.logs).toHaveLength(2);
  });
});

describe("resume", () => {
  it("names every room with its position and continues it", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)), wireRoom([], { id: "room-002", name: "Empty" }));
    bench.reconnect();
    const rooms = [
      { roomId: GENERAL, epoch: 1, seq: 3 },
      { roomId: "room-002", epoch: 1, seq: 0 },
    ];
    expect(bench.takeSent()).toEqual([{ type: "resume", payload: { rooms } }]);
    bench.hello(wireRoom(wireMessages(4, 6)), wireRoom([], { id: "room-002" }));
    expect(bench.seqs()).toEqual(range(1, 6));
    expect(bench.room().older.name).toBe("none");
  });

  it("takes a page that overlaps, as a server gives it that knows no cursor", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 5)));
    bench.reconnect();
    bench.hello(wireRoom(wireMessages(3, 8)));
    expect(bench.seqs()).toEqual(range(1, 8));
  });

  it.each([
    ["cut", wireRoom(wireMessages(40, 42), { cut: true })],
    ["another epoch", wireRoom(wireMessages(40, 42), { epoch: 2 })],
    ["a page above a hole", wireRoom(wireMessages(40, 42))],
  ])("%s replaces what is held", (_, room) => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.reconnect();
    bench.hello(room);
    expect(bench.seqs()).toEqual(range(40, 42));
    expect(bench.room().older.name).toBe("available");
    bench.live(wireMessage(43));
    expect(bench.seqs()).toEqual(range(40, 43));
  });

  it("a page that was cut to nothing is asked for from the newest", () => {
    const bench = ClientBench.inRooms(wireRoom([], { lastSeq: 50, hasMoreMessages: true }));
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    expect(bench.takeSent()).toEqual([{ type: "requestRoomHistory", payload: { roomId: GENERAL, firstMessageId: "", count: 50 } }]);
    bench.history(wireMessages(1, 51), false);
    expect(bench.seqs()).toEqual(range(1, 50));
    bench.live(wireMessage(51));
    expect(bench.seqs()).toEqual(range(1, 51));
  });

  it("forgets rooms that are gone, keeps public ones to join again", () => {
    const open = { id: "pub", name: "Open", kind: "public" };
    const bench = ClientBench.inRooms(wireRoom([]), wireRoom([], { id: "room-002" }), wireRoom([], open));
    bench.reconnect();
    bench.hello(wireRoom([]));
    expect(bench.client.view().rooms.map((room) => [room.id, room.joined])).toEqual([
      [GENERAL, true],
      ["pub", false],
    ]);
  });

  it("another person starts with nothing of the first", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)), wireRoom([], { id: "private-1", kind: "private" }));
    bench.event({ type: "closed", code: 1008 });
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    expect(bench.takeSent()).toEqual([{ type: "resume", payload: { rooms: [] } }]);
    bench.receive("hello", { me: { id: "u-eve", username: "eve" }, rooms: [wireRoom(wireMessages(3, 4))] });
    expect(bench.client.view().rooms.map((room) => room.id)).toEqual([GENERAL]);
    expect(bench.seqs()).toEqual([3, 4]);
  });
});

describe("cut and lag", () => {
  it("cut replaces all that is held", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.live(wireMessage(9));
    bench.receive("cut", { roomId: GENERAL, epoch: 2, lastSeq: 12, hasMoreMessages: true, messages: wireMessages(11, 12) });
    expect(bench.seqs()).toEqual([11, 12]);
    bench.history(wireMessages(4, 6), true);
    expect(bench.seqs()).toEqual([11, 12]);
    bench.live(wireMessage(13));
    expect(bench.seqs()).toEqual(range(11, 13));
  });

  it("lagging shows until caught up", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    bench.receive("lagging", { roomId: GENERAL, seq: 3 });
    expect(bench.state).toBe("lagging");
    bench.receive("caughtUp", { roomId: GENERAL, seq: 3 });
    expect(bench.state).toBe("open");
  });
});

describe("history", () => {
  it("pages back to the first message", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(91, 120)));
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    const firstMessageId = wireMessage(91).id;
    expect(bench.takeSent()).toEqual([{ type: "requestRoomHistory", payload: { roomId: GENERAL, firstMessageId, count: 50 } }]);
    expect(bench.room().older.name).toBe("loading");
    bench.history(wireMessages(41, 90), true);
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    bench.history(wireMessages(1, 40), false);
    expect(bench.seqs()).toEqual(range(1, 120));
    expect(bench.room().older.name).toBe("none");
  });

  it("shows why a page did not come, and asks again when it may", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(91, 120)));
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    bench.takeSent();
    const error = { code: "UNAVAILABLE", message: "try later", requestType: "requestRoomHistory", roomId: GENERAL, retryAfterMs: 2000 };
    bench.receive("error", error);
    expect(bench.room().older).toEqual({ name: "failed", message: "try later" });
    bench.advance(1999);
    expect(bench.takeSent()).toEqual([]);
    bench.advance(1);
    expect(bench.takeSent()).toHaveLength(1);
    expect(bench.room().older.name).toBe("loading");
  });

  it("a page that does not end at what is held is not taken", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(91, 120)));
    bench.run((client, now) => client.loadOlder(GENERAL, now));
    bench.history(wireMessages(10, 20), true);
    expect(bench.seqs()).toEqual(range(91, 120));
    expect(bench.room().older.name).toBe("available");
  });
});

describe("memory", () => {
  it("an idle room keeps a few, the open one more, both with a bound", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    const last = OPEN_ROOM_MESSAGES_MAX + 1000;
    bench.run((client) => client.openRoom(GENERAL));
    for (let seq = 1; seq <= last; seq += 50) bench.live(...wireMessages(seq, seq + 49));
    expect(bench.seqs().length).toBeLessThanOrEqual(OPEN_ROOM_MESSAGES_MAX + 100);
    expect(bench.seqs().at(-1)).toBe(last);
    expect(bench.room().older.name).toBe("full");
    bench.run((client) => client.openRoom(undefined));
    expect(bench.seqs()).toEqual(range(last - IDLE_ROOM_MESSAGES_MAX + 1, last));
    expect(bench.room().older.name).toBe("available");
  });
});

describe("unread", () => {
  it("counts what came after the mark; our own word moves it", () => {
    const bench = ClientBench.inRooms(wireRoom(wireMessages(1, 3)));
    expect(bench.room().unread).toBe(0);
    bench.live(...wireMessages(4, 6));
    expect(bench.room().unread).toBe(3);
    bench.run((client) => client.markRead(GENERAL, 5));
    expect(bench.room().unread).toBe(1);
    bench.live(wireMessage(7, "mine", ann));
    expect(bench.room().unread).toBe(0);
  });

  it("goes on where the last visit ended", () => {
    const bench = new ClientBench(() => 0.5, { readSeqs: { [GENERAL]: 2 } });
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.hello(wireRoom(wireMessages(1, 3)), wireRoom(wireMessages(1, 4), { id: "room-002" }));
    expect(bench.room().unread).toBe(1);
    expect(bench.room("room-002").unread).toBe(4);
  });
});

describe("public rooms of an earlier visit", () => {
  const memory = { readSeqs: { pub: 38 }, publicRooms: ["pub"] };
  const room = wireRoom(wireMessages(11, 40), { id: "pub", name: "Open", kind: "public" });

  function visit(me = ann): ClientBench {
    const bench = new ClientBench(() => 0.5, memory);
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.takeSent();
    bench.receive("hello", { me, rooms: [wireRoom([])] });
    return bench;
  }

  it("are joined again, once, and show what is unread", () => {
    const bench = visit();
    expect(bench.takeSent()).toEqual([{ type: "join", payload: { roomId: "pub" } }]);
    bench.receive("joined", room);
    expect(bench.room("pub")).toMatchObject({ name: "Open", joined: true, unread: 2, older: { name: "available" } });
    bench.reconnect();
    bench.hello(wireRoom([]), { ...room, messages: [] });
    expect(bench.takeSent().map((frame) => frame.type)).toEqual(["resume"]);
  });

  it("are nobody else's", () => {
    expect(visit(bob).takeSent()).toEqual([]);
  });

  it("come back when the same person logs out and in again", () => {
    const bench = visit();
    bench.receive("joined", room);
    bench.run((client) => client.leave(true));
    bench.event({ type: "closed", code: 4501 });
    bench.run((client) => client.signOut());
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.takeSent();
    bench.hello(wireRoom([]));
    expect(bench.takeSent()).toEqual([{ type: "join", payload: { roomId: "pub" } }]);
  });
});
