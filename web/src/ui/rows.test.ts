import { describe, expect, it } from "vitest";
import type { Message } from "../protocol/frames";
import type { PendingMessage } from "../protocol/outbox";
import { rowsOf } from "./rows";

const MINUTE = 60_000;
const NOON = new Date(2026, 2, 10, 12, 0).getTime();

function message(seq: number, userId: string, timestamp: number): Message {
  return { id: `m${seq}`, seq, content: `message ${seq}`, timestamp, user: { id: userId, username: userId } };
}

function pending(clientMessageId: string, timestamp: number): PendingMessage {
  return { clientMessageId, content: "soon", timestamp, state: "sending", error: undefined };
}

function shape(messages: Message[], waiting: PendingMessage[] = [], unreadAfter?: number): string[] {
  return rowsOf({ messages, pending: waiting, myId: "me", unreadAfter }).map((row) => {
    if (row.kind === "message") return `${row.message.seq}${row.isOwn ? " own" : ""}${row.startsGroup ? " starts" : ""}`;
    return row.kind === "pending" ? `pending${row.startsGroup ? " starts" : ""}` : row.kind;
  });
}

describe("rows", () => {
  it("group what one author says within five minutes", () => {
    const messages = [
      message(1, "ann", NOON),
      message(2, "ann", NOON + 5 * MINUTE),
      message(3, "ann", NOON + 10 * MINUTE + 1),
      message(4, "me", NOON + 11 * MINUTE),
    ];
    expect(shape(messages)).toEqual(["day", "1 starts", "2", "3 starts", "4 own starts"]);
  });

  it("start a day at midnight of the reader's calendar", () => {
    const midnight = new Date(2026, 2, 11, 0, 0).getTime();
    expect(shape([message(1, "ann", midnight - 1), message(2, "ann", midnight)])).toEqual(["day", "1 starts", "day", "2 starts"]);
  });

  it("mark where the unread begin", () => {
    const messages = [message(1, "ann", NOON), message(2, "ann", NOON), message(3, "ann", NOON)];
    expect(shape(messages, [], 1)).toEqual(["day", "1 starts", "unread", "2 starts", "3"]);
    expect(shape(messages, [], 3)).not.toContain("unread");
  });

  it("put what is under way last and join it to our own", () => {
    const rows = shape([message(1, "me", NOON)], [pending("a", NOON + MINUTE), pending("b", NOON + MINUTE)]);
    expect(rows).toEqual(["day", "1 own starts", "pending", "pending"]);
  });

  it("have keys that stay when older messages come", () => {
    const keys = (from: number) =>
      rowsOf({ messages: [1, 2, 3].slice(from).map((seq) => message(seq, "ann", NOON)), pending: [], myId: "me", unreadAfter: undefined })
        .filter((row) => row.kind === "message")
        .map((row) => row.key);
    expect(keys(0).slice(1)).toEqual(keys(1));
  });
});
