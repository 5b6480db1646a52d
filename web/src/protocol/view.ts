/** What the person in front of the screen may know: immutable pictures of the client, compared by identity. */
import type { Message, RoomKind, User } from "./frames";
import type { PendingMessage } from "./outbox";

export type ConnectionView =
  | { readonly name: "idle" | "connecting" | "open" | "lagging" }
  /** `retryAt` is in the time of the clock that drives the client. */
  | { readonly name: "reconnecting"; readonly retryAt: number; readonly message: string }
  | { readonly name: "signed-out"; readonly message: string | undefined }
  | { readonly name: "failed"; readonly message: string };

export interface RoomView {
  readonly id: string;
  readonly name: string;
  readonly kind: RoomKind;
  readonly creatorId: string;
  /** Messages arrive; a public room that was not opened yet is not joined. */
  readonly joined: boolean;
  readonly joinError: string | undefined;
  readonly messages: readonly Message[];
  readonly pending: readonly PendingMessage[];
  readonly lastSeq: number;
  readonly readSeq: number;
  readonly unread: number;
  readonly lagging: boolean;
  readonly older: OlderView;
}

/** What lies above the first message held. */
export type OlderView =
  | { readonly name: "none" | "available" | "loading" }
  /** This browser holds as much of the room as it wants to. */
  | { readonly name: "full" }
  | { readonly name: "failed"; readonly message: string };

export type RoomCreation =
  | { readonly name: "idle" }
  | { readonly name: "asking"; readonly roomName: string }
  | { readonly name: "taken"; readonly roomName: string }
  | { readonly name: "failed"; readonly roomName: string; readonly message: string; readonly retryAt: number | undefined }
  | { readonly name: "created"; readonly roomName: string; readonly roomId: string };

export interface ClientView {
  readonly connection: ConnectionView;
  readonly me: User | undefined;
  readonly rooms: readonly RoomView[];
  readonly creation: RoomCreation;
  /** Something went wrong that belongs to no place on the screen. */
  readonly notice: string | undefined;
}
