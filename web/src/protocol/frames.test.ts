import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { decodeFrame } from "./decode";
import { type ClientFrame, encodeFrame } from "./frames";
import { ann, seededRandom, wireMessage, wireRoom } from "./testing";

function decode(type: string, payload: unknown) {
  return decodeFrame(JSON.stringify({ type, payload }));
}

describe("encode", () => {
  const frames: [string, ClientFrame][] = [
    ['{"type":"resume","payload":{"rooms":[]}}', { type: "resume", rooms: [] }],
    [
      '{"type":"resume","payload":{"rooms":[{"roomId":"room-001","epoch":3,"seq":7}]}}',
      { type: "resume", rooms: [{ roomId: "room-001", epoch: 3, seq: 7 }] },
    ],
    [
      '{"type":"clientMessages","payload":{"roomId":"room-001","messages":[{"content":"Hello!","clientMessageId":"a-1"}]}}',
      { type: "clientMessages", roomId: "room-001", messages: [{ content: "Hello!", clientMessageId: "a-1" }] },
    ],
    [
      '{"type":"requestRoomHistory","payload":{"roomId":"room-001","firstMessageId":"9-1","count":30}}',
      { type: "requestRoomHistory", roomId: "room-001", anchor: { firstMessageId: "9-1" }, count: 30 },
    ],
    [
      '{"type":"requestRoomHistory","payload":{"roomId":"room-001","afterSeq":4,"count":200}}',
      { type: "requestRoomHistory", roomId: "room-001", anchor: { afterSeq: 4 }, count: 200 },
    ],
    [
      '{"type":"requestRoomHistory","payload":{"roomId":"room-001","firstMessageId":"","count":50}}',
      { type: "requestRoomHistory", roomId: "room-001", anchor: "newest", count: 50 },
    ],
    ['{"type":"clientCreateRoom","payload":{"roomName":"dpdk"}}', { type: "clientCreateRoom", roomName: "dpdk" }],
    ['{"type":"join","payload":{"roomId":"r"}}', { type: "join", roomId: "r", cursor: undefined }],
    ['{"type":"join","payload":{"roomId":"r","epoch":1,"seq":2}}', { type: "join", roomId: "r", cursor: { epoch: 1, seq: 2 } }],
    ['{"type":"leave","payload":{"roomId":"r"}}', { type: "leave", roomId: "r" }],
  ];

  it.each(frames)("%s", (text, frame) => {
    expect(encodeFrame(frame)).toBe(text);
  });
});

describe("decode", () => {
  it("reads hello with cut rooms and ignores fields it does not know", () => {
    const room = { ...wireRoom([wireMessage(7)], { cut: true }), colour: "blue" };
    const decoded = decode("hello", { me: ann, rooms: [room], motd: "hi" });
    expect(decoded).toMatchObject({ ok: true, frame: { type: "hello", me: ann, rooms: [{ cut: true, lastSeq: 7, creatorId: "" }] } });
  });

  it("four empty strings mean taken, an absent kind means default", () => {
    const none = { roomId: "", roomName: "", creatorId: "", creatorUsername: "" };
    expect(decode("serverCreateRoom", none)).toEqual({ ok: true, frame: { type: "serverCreateRoom", created: "taken" } });
    const one = { roomId: "r", roomName: "dpdk", creatorId: "u", creatorUsername: "ann" };
    expect(decode("serverCreateRoom", one)).toMatchObject({ ok: true, frame: { created: { kind: "default" } } });
    expect(decode("serverCreateRoom", { ...one, kind: "public" })).toMatchObject({ ok: true, frame: { created: { kind: "public" } } });
    expect(decode("serverCreateRoom", { ...one, kind: "secret" }).ok).toBe(false);
  });

  it("an error frame needs no place", () => {
    const decoded = decode("error", { code: "BAD_JSON", message: "not json", requestType: "" });
    expect(decoded).toMatchObject({ ok: true, frame: { roomId: undefined, retryAfterMs: undefined } });
  });

  it.each(["", "test", "null", "[]", "1", '{"type":1}', '{"type":"hello"}', '{"type":"typing","payload":{}}'])("refuses %j", (text) => {
    expect(decodeFrame(text)).toMatchObject({ ok: false });
  });

  it.each([-1, 1.5, 2 ** 53, "7", null])("refuses %j as a number in a room", (seq) => {
    const messages = [{ ...wireMessage(1), seq }];
    expect(decode("serverMessages", { roomId: "r", messages }).ok).toBe(false);
  });

  it("never throws on a mutilated frame", () => {
    const random = seededRandom(7);
    const text = JSON.stringify({ type: "hello", payload: { me: ann, rooms: [wireRoom([wireMessage(1)])] } });
    for (let round = 0; round < 5000; round += 1) {
      const from = Math.floor(random() * text.length);
      const upTo = from + Math.floor(random() * 12);
      const filler = ["", "null", "[]", "{}", "0", '"'][Math.floor(random() * 6)] as string;
      expect(() => decodeFrame(text.slice(0, from) + filler + text.slice(upTo))).not.toThrow();
    }
  });
});

/** Byte-exact frames that the server's tests read too. */
const VECTORS = fileURLToPath(new URL("../../../proto/tests/vectors/", import.meta.url));
const FROM_BROWSER = new Set(["resume", "clientMessages", "requestRoomHistory", "clientCreateRoom", "join", "leave"]);

const files = existsSync(VECTORS) ? readdirSync(VECTORS).filter((name) => name.endsWith(".json")) : [];

describe("wire vectors", () => {
  if (files.length === 0) it.skip("not run: proto/tests/vectors is not here", () => undefined);

  for (const file of files) {
    const vectors = JSON.parse(readFileSync(VECTORS + file, "utf8")) as { name: string; text: string }[];
    it.each(vectors)(`${file}: $name`, ({ text }) => {
      const { type, payload } = JSON.parse(text) as { type: string; payload: Record<string, unknown> };
      const mine = FROM_BROWSER.has(type) ? clientFrame(type, payload) : undefined;
      if (mine) expect(encodeFrame(mine)).toBe(text);
      else if (!FROM_BROWSER.has(type)) expect(decodeFrame(text)).toMatchObject({ ok: true });
    });
  }
});

/** The frame as this client would make it; `undefined` for forms that only other clients send. */
function clientFrame(type: string, payload: Record<string, unknown>): ClientFrame | undefined {
  const { epoch, seq, roomId, afterSeq, firstMessageId, count, messages } = payload;
  switch (type) {
    case "clientMessages": {
      const all = (messages ?? []) as { clientMessageId?: string }[];
      const isOurs = messages !== undefined && all.every((message) => message.clientMessageId !== undefined);
      return isOurs ? ({ type, ...payload } as ClientFrame) : undefined;
    }
    case "requestRoomHistory": {
      if (count === undefined) return undefined;
      const anchor = afterSeq !== undefined ? { afterSeq } : firstMessageId ? { firstMessageId } : "newest";
      return { type, roomId, anchor, count } as ClientFrame;
    }
    case "join":
      return { type, roomId, cursor: epoch === undefined ? undefined : { epoch, seq } } as ClientFrame;
    default:
      return { type, ...payload } as ClientFrame;
  }
}
