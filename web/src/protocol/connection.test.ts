import { describe, expect, it } from "vitest";
import { Backoff } from "./backoff";
import { closeRule } from "./close";
import { BACKOFF_CAP_MS, CONNECT_TIMEOUT_MS, STABLE_AFTER_MS } from "./limits";
import { ClientBench, seededRandom, wireRoom } from "./testing";

describe("close codes", () => {
  it("only authentication leads to the login page", () => {
    const signIn = Array.from({ length: 4000 }, (_, index) => index + 1000).filter((code) => closeRule(code).then === "sign-in");
    expect(signIn).toEqual([1008, 4501]);
  });

  it.each([
    [1000, "back-off"],
    [1001, "back-off"],
    [1002, "back-off"],
    [1003, "back-off"],
    [1006, "back-off"],
    [1007, "back-off"],
    [1009, "back-off"],
    [1011, "back-off"],
    [1012, "at-once"],
    [1013, "back-off"],
    [4399, "back-off"],
    [4400, "back-off"],
    [4429, "back-off"],
    [4499, "back-off"],
    [4500, "stop"],
    [4503, "stop"],
    [4599, "stop"],
    [4600, "back-off"],
  ])("%i: %s", (code, then) => {
    expect(closeRule(code).then).toBe(then);
  });
});

describe("back-off", () => {
  it("doubles its ceiling up to the cap and uses all of it", () => {
    const highest = new Backoff(() => 0.999_999);
    const pauses = Array.from({ length: 8 }, () => highest.next());
    expect(pauses).toEqual([999, 1999, 3999, 7999, 15999, 29999, 29999, 29999]);
    expect(new Backoff(() => 0).next()).toBe(0);
  });

  it("never passes the cap, whatever the seed", () => {
    for (let seed = 0; seed < 50; seed += 1) {
      const backoff = new Backoff(seededRandom(seed));
      for (let attempt = 0; attempt < 2000; attempt += 1) expect(backoff.next()).toBeLessThan(BACKOFF_CAP_MS);
    }
  });
});

describe("connection", () => {
  it("sends resume first and nothing else before hello", () => {
    const bench = new ClientBench();
    bench.run((client, now) => client.connect(now));
    expect(bench.actions).toEqual(["connect"]);
    bench.event({ type: "opened" });
    expect(bench.takeSent()).toEqual([{ type: "resume", payload: { rooms: [] } }]);
    expect(bench.state).toBe("connecting");
    bench.hello(wireRoom([]));
    expect(bench.state).toBe("open");
  });

  it("shows when it will come back and comes back then", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.event({ type: "closed", code: 1006 });
    expect(bench.client.view().connection).toEqual({
      name: "reconnecting",
      retryAt: bench.now + 500,
      message: "The connection was lost.",
    });
    bench.advance(499);
    expect(bench.actions).toEqual([]);
    bench.advance(1);
    expect(bench.actions).toEqual(["connect"]);
  });

  it("a first visit without a session goes to the login page without a word", () => {
    const bench = new ClientBench();
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.event({ type: "closed", code: 1008 });
    expect(bench.client.view().connection).toEqual({ name: "signed-out", message: undefined });
    expect(bench.client.pollTimeout()).toBeUndefined();
  });

  it("an ended session says so", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.event({ type: "closed", code: 1008 });
    expect(bench.client.view().connection).toMatchObject({ name: "signed-out", message: expect.stringContaining("ended") });
  });

  it("a close that follows our logout needs no explanation", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.run((client) => client.leave(true));
    bench.event({ type: "closed", code: 4501 });
    expect(bench.client.view().connection).toEqual({ name: "signed-out", message: undefined });
  });

  it("1012 reconnects at once, but only once in a row", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.event({ type: "closed", code: 1012 });
    expect(bench.state).toBe("connecting");
    bench.event({ type: "opened" });
    bench.hello(wireRoom([]));
    bench.event({ type: "closed", code: 1012 });
    expect(bench.state).toBe("reconnecting");
  });

  it("a stable connection makes the next back-off small again", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    for (let attempt = 0; attempt < 4; attempt += 1) bench.reconnect();
    bench.hello(wireRoom([]));
    bench.advance(STABLE_AFTER_MS - 1);
    bench.event({ type: "closed", code: 1006 });
    expect(bench.client.pollTimeout()).toBe(bench.now + 8000);
    bench.reconnect();
    bench.hello(wireRoom([]));
    bench.advance(STABLE_AFTER_MS);
    bench.event({ type: "closed", code: 1006 });
    expect(bench.client.pollTimeout()).toBe(bench.now + 500);
  });

  it("4503 stays away until it is asked to try again", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.event({ type: "closed", code: 4503 });
    expect(bench.state).toBe("failed");
    bench.event({ type: "online" });
    bench.advance(3_600_000);
    expect(bench.actions).toEqual([]);
    bench.run((client, now) => client.connect(now));
    expect(bench.actions).toEqual(["connect"]);
  });

  it("a network that returns ends the wait", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.event({ type: "closed", code: 1013 });
    bench.event({ type: "online" });
    expect(bench.state).toBe("connecting");
  });

  it("gives up an attempt that gets no hello", () => {
    const bench = new ClientBench();
    bench.run((client, now) => client.connect(now));
    bench.event({ type: "opened" });
    bench.advance(CONNECT_TIMEOUT_MS);
    expect(bench.actions).toEqual(["connect", "close"]);
    expect(bench.state).toBe("reconnecting");
  });

  it("moves inside the window of a drain notice, at a random moment", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("draining", { reconnectMinMs: 1000, reconnectMaxMs: 3000 });
    bench.advance(1999);
    expect(bench.actions).toEqual([]);
    expect(bench.state).toBe("open");
    bench.advance(1);
    expect(bench.actions).toEqual(["close", "connect"]);
    bench.event({ type: "opened" });
    expect(bench.takeSent()).toEqual([{ type: "resume", payload: { rooms: [{ roomId: "room-001", epoch: 1, seq: 0 }] } }]);
  });

  it("a drain that closes first keeps the moment that was drawn", () => {
    const bench = ClientBench.inRooms(wireRoom([]));
    bench.receive("draining", { reconnectMinMs: 1000, reconnectMaxMs: 3000 });
    const retryAt = bench.now + 2000;
    bench.advance(500);
    bench.event({ type: "closed", code: 1001 });
    expect(bench.client.pollTimeout()).toBe(retryAt);
  });
});
