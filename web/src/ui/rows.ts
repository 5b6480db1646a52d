/** Turns a room into the rows of its list: messages, days between them, the mark where the unread begin. */
import type { Message } from "../protocol/frames";
import type { PendingMessage } from "../protocol/outbox";
import { dayNumber } from "./format";

export type Row =
  | { readonly kind: "day"; readonly key: string; readonly timestamp: number }
  | { readonly kind: "unread"; readonly key: string }
  | { readonly kind: "message"; readonly key: string; readonly message: Message; readonly isOwn: boolean; readonly startsGroup: boolean }
  | { readonly kind: "pending"; readonly key: string; readonly pending: PendingMessage; readonly startsGroup: boolean };

/** Messages of one author closer than this stand under one name. */
const GROUP_GAP_MS = 5 * 60_000;

export interface RowSource {
  readonly messages: readonly Message[];
  readonly pending: readonly PendingMessage[];
  readonly myId: string;
  /** The last number read when the room was opened; `undefined` when nothing was unread. */
  readonly unreadAfter: number | undefined;
}

export function rowsOf({ messages, pending, myId, unreadAfter }: RowSource): readonly Row[] {
  const rows: Row[] = [];
  let author: string | undefined;
  let at = Number.NEGATIVE_INFINITY;
  let day: number | undefined;

  const place = (key: string, userId: string, timestamp: number): boolean => {
    const thisDay = dayNumber(timestamp);
    if (thisDay !== day) {
      rows.push({ kind: "day", key: `day-of-${key}`, timestamp });
      author = undefined;
    }
    const startsGroup = author !== userId || timestamp - at > GROUP_GAP_MS;
    author = userId;
    at = timestamp;
    day = thisDay;
    return startsGroup;
  };

  for (const message of messages) {
    const isFirstUnread = unreadAfter !== undefined && message.seq === unreadAfter + 1;
    if (isFirstUnread) author = undefined;
    const key = `m-${message.seq}`;
    const startsGroup = place(key, message.user.id, message.timestamp);
    if (isFirstUnread) rows.push({ kind: "unread", key: "unread" });
    rows.push({ kind: "message", key, message, isOwn: message.user.id === myId, startsGroup });
  }
  for (const one of pending) {
    const key = `p-${one.clientMessageId}`;
    const startsGroup = place(key, myId, one.timestamp);
    rows.push({ kind: "pending", key, pending: one, startsGroup });
  }
  return rows;
}
