/**
 * Reads what the server sends. Nothing past this file sees an unchecked value.
 *
 * Unknown fields are ignored, unknown types and wrong shapes are refused with a reason: another system may push any
 * bytes to a browser, and none of them may break the page.
 */
import type { Ack, Message, RoomKind, RoomState, ServerFrame, User } from "./frames";

export type Decoded = { readonly ok: true; readonly frame: ServerFrame } | { readonly ok: false; readonly reason: string };

export function decodeFrame(text: string): Decoded {
  try {
    const outer = record(parse(text), "frame");
    const type = string(outer, "type");
    return { ok: true, frame: decodePayload(type, record(outer["payload"], "payload")) };
  } catch (error) {
    if (error instanceof Refused) return { ok: false, reason: error.message };
    throw error;
  }
}

function decodePayload(type: string, payload: Fields): ServerFrame {
  switch (type) {
    case "hello":
      return { type, me: user(payload["me"]), rooms: list(payload, "rooms", roomState) };
    case "joined":
      return { type, room: roomState(payload) };
    case "serverMessages":
      return { type, roomId: string(payload, "roomId"), messages: list(payload, "messages", message) };
    case "serverRoomHistory":
      return {
        type,
        roomId: string(payload, "roomId"),
        epoch: optional(payload, "epoch", count),
        hasMoreMessages: boolean(payload, "hasMoreMessages"),
        messages: list(payload, "messages", message),
      };
    case "serverCreateRoom":
      return createRoom(payload);
    case "ack":
      return { type, roomId: string(payload, "roomId"), messages: list(payload, "messages", ack) };
    case "error":
      return {
        type,
        code: string(payload, "code"),
        message: string(payload, "message"),
        requestType: optional(payload, "requestType", string) ?? "",
        roomId: optional(payload, "roomId", string),
        clientMessageId: optional(payload, "clientMessageId", string),
        retryAfterMs: optional(payload, "retryAfterMs", count),
      };
    case "lagging":
    case "caughtUp":
      return { type, roomId: string(payload, "roomId"), seq: count(payload, "seq") };
    case "cut":
      return {
        type,
        roomId: string(payload, "roomId"),
        epoch: count(payload, "epoch"),
        lastSeq: count(payload, "lastSeq"),
        hasMoreMessages: boolean(payload, "hasMoreMessages"),
        messages: list(payload, "messages", message),
      };
    case "draining":
      return { type, reconnectMinMs: count(payload, "reconnectMinMs"), reconnectMaxMs: count(payload, "reconnectMaxMs") };
    default:
      throw new Refused(`unknown frame type ${JSON.stringify(type.slice(0, 40))}`);
  }
}

function createRoom(payload: Fields): ServerFrame {
  const fields = {
    roomId: string(payload, "roomId"),
    roomName: string(payload, "roomName"),
    creatorId: string(payload, "creatorId"),
  };
  if (fields.roomId === "") return { type: "serverCreateRoom", created: "taken" };
  const kind = roomKind(payload["kind"]);
  return { type: "serverCreateRoom", created: { ...fields, kind, epoch: optional(payload, "epoch", count) } };
}

function roomState(value: unknown): RoomState {
  const fields = record(value, "room");
  return {
    id: string(fields, "id"),
    name: string(fields, "name"),
    creatorId: string(fields, "creator_id"),
    kind: roomKind(fields["kind"]),
    epoch: count(fields, "epoch"),
    lastSeq: count(fields, "lastSeq"),
    cut: fields["cut"] === true,
    hasMoreMessages: boolean(fields, "hasMoreMessages"),
    messages: list(fields, "messages", message),
  };
}

function message(value: unknown): Message {
  const fields = record(value, "message");
  return {
    id: string(fields, "id"),
    seq: count(fields, "seq"),
    content: string(fields, "content"),
    timestamp: count(fields, "timestamp"),
    user: user(fields["user"]),
  };
}

function ack(value: unknown): Ack {
  const fields = record(value, "ack");
  return {
    clientMessageId: string(fields, "clientMessageId"),
    id: string(fields, "id"),
    seq: count(fields, "seq"),
    timestamp: count(fields, "timestamp"),
  };
}

function user(value: unknown): User {
  const fields = record(value, "user");
  return { id: string(fields, "id"), username: string(fields, "username") };
}

/** A server that names no kind knows one only: everybody is a member. */
function roomKind(value: unknown): RoomKind {
  if (value === undefined) return "default";
  if (value === "default" || value === "public" || value === "private") return value;
  throw new Refused("unknown room kind");
}

class Refused extends Error {}

type Fields = Readonly<Record<string, unknown>>;

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Refused("not JSON");
  }
}

function record(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Refused(`${what} is not an object`);
  return value as Fields;
}

function string(fields: Fields, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") throw new Refused(`${key} is not a string`);
  return value;
}

function boolean(fields: Fields, key: string): boolean {
  const value = fields[key];
  if (typeof value !== "boolean") throw new Refused(`${key} is not a boolean`);
  return value;
}

/** A whole number from 0 to 2^53 − 1: what JavaScript can compare exactly. */
function count(fields: Fields, key: string): number {
  const value = fields[key];
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Refused(`${key} is not a whole number`);
  return value as number;
}

function list<T>(fields: Fields, key: string, item: (value: unknown) => T): T[] {
  const value = fields[key];
  if (!Array.isArray(value)) throw new Refused(`${key} is not a list`);
  return value.map(item);
}

function optional<T>(fields: Fields, key: string, read: (fields: Fields, key: string) => T): T | undefined {
  return fields[key] === undefined || fields[key] === null ? undefined : read(fields, key);
}
