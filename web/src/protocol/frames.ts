/**
 * Frames between browser and gateway: JSON text, `{"type", "payload"}`, sub-protocol `corecast.v1`.
 *
 * Types of both directions and the encoder; `decode.ts` reads what comes in. Field order is that of the wire
 * vectors, so that both languages can compare bytes.
 */

export const SUBPROTOCOL = "corecast.v1";

export interface User {
  readonly id: string;
  readonly username: string;
}

/** A stored message; `seq` is its number in the room, without gaps from 1. */
export interface Message {
  readonly id: string;
  readonly seq: number;
  readonly content: string;
  /** Milliseconds since 1970 UTC. */
  readonly timestamp: number;
  readonly user: User;
}

/** default: everybody is a member · public: joined by opening it · private: members only. */
export type RoomKind = "default" | "public" | "private";

/** A room as `hello` and `joined` describe it. */
export interface RoomState {
  readonly id: string;
  readonly name: string;
  readonly creatorId: string;
  readonly kind: RoomKind;
  readonly epoch: number;
  readonly lastSeq: number;
  /** The messages replace what the client holds, they do not continue it. */
  readonly cut: boolean;
  readonly hasMoreMessages: boolean;
  readonly messages: readonly Message[];
}

export type ServerFrame =
  | { readonly type: "hello"; readonly me: User; readonly rooms: readonly RoomState[] }
  | { readonly type: "joined"; readonly room: RoomState }
  | { readonly type: "serverMessages"; readonly roomId: string; readonly messages: readonly Message[] }
  | {
      readonly type: "serverRoomHistory";
      readonly roomId: string;
      readonly epoch: number | undefined;
      readonly hasMoreMessages: boolean;
      readonly messages: readonly Message[];
    }
  | ServerCreateRoom
  | { readonly type: "ack"; readonly roomId: string; readonly messages: readonly Ack[] }
  | ErrorFrame
  | { readonly type: "lagging"; readonly roomId: string; readonly seq: number }
  | { readonly type: "caughtUp"; readonly roomId: string; readonly seq: number }
  | {
      readonly type: "cut";
      readonly roomId: string;
      readonly epoch: number;
      readonly lastSeq: number;
      readonly hasMoreMessages: boolean;
      readonly messages: readonly Message[];
    }
  | { readonly type: "draining"; readonly reconnectMinMs: number; readonly reconnectMaxMs: number };

/** Four empty strings on the wire mean "that name is taken" and become `taken`. */
export type ServerCreateRoom = {
  readonly type: "serverCreateRoom";
  readonly created:
    | "taken"
    | {
        readonly roomId: string;
        readonly roomName: string;
        readonly creatorId: string;
        readonly kind: RoomKind;
        /** Where a server does not tell it, the next `hello` or history page does. */
        readonly epoch: number | undefined;
      };
};

export interface Ack {
  readonly clientMessageId: string;
  readonly id: string;
  readonly seq: number;
  readonly timestamp: number;
}

export interface ErrorFrame {
  readonly type: "error";
  readonly code: string;
  readonly message: string;
  readonly requestType: string;
  readonly roomId: string | undefined;
  readonly clientMessageId: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** Where a client stands in a room. */
export interface Cursor {
  readonly roomId: string;
  readonly epoch: number;
  readonly seq: number;
}

export interface OutgoingMessage {
  readonly content: string;
  readonly clientMessageId: string;
}

export type ClientFrame =
  | { readonly type: "resume"; readonly rooms: readonly Cursor[] }
  | { readonly type: "clientMessages"; readonly roomId: string; readonly messages: readonly OutgoingMessage[] }
  | { readonly type: "requestRoomHistory"; readonly roomId: string; readonly anchor: HistoryAnchor; readonly count: number }
  | { readonly type: "clientCreateRoom"; readonly roomName: string }
  | { readonly type: "join"; readonly roomId: string; readonly cursor: { readonly epoch: number; readonly seq: number } | undefined }
  | { readonly type: "leave"; readonly roomId: string };

export type HistoryAnchor =
  /** The messages before this one. */
  | { readonly firstMessageId: string }
  /** The messages after this number. */
  | { readonly afterSeq: number }
  | "newest";

export function encodeFrame(frame: ClientFrame): string {
  return JSON.stringify({ type: frame.type, payload: payloadOf(frame) });
}

function payloadOf(frame: ClientFrame): object {
  switch (frame.type) {
    case "resume":
      return { rooms: frame.rooms.map(({ roomId, epoch, seq }) => ({ roomId, epoch, seq })) };
    case "clientMessages":
      return {
        roomId: frame.roomId,
        messages: frame.messages.map(({ content, clientMessageId }) => ({ content, clientMessageId })),
      };
    case "requestRoomHistory":
      return { roomId: frame.roomId, ...(frame.anchor === "newest" ? { firstMessageId: "" } : frame.anchor), count: frame.count };
    case "clientCreateRoom":
      return { roomName: frame.roomName };
    case "join":
      return { roomId: frame.roomId, ...frame.cursor };
    case "leave":
      return { roomId: frame.roomId };
  }
}
