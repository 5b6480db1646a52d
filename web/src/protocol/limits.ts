/**
 * The numbers of this client, each with its unit and what raising it costs.
 *
 * Those of the first group mirror the server's defaults: the client stops earlier so that the person learns of a
 * limit while typing and not from an error frame.
 */

/** Bytes of UTF-8 in the content of one message. */
export const CONTENT_BYTES_MAX = 4 * 1024;
/** Messages in one `clientMessages` frame. */
export const FRAME_MESSAGES_MAX = 64;
/** Content bytes in one `clientMessages` frame: JSON may escape a byte to six, the server takes 64 KiB a frame. */
export const FRAME_CONTENT_BYTES_MAX = 8 * 1024;
/** Cursors in one `resume`: about 90 bytes each, in a frame of 64 KiB. Rooms beyond it come as new ones. */
export const RESUME_ROOMS_MAX = 500;
export const ROOM_NAME_CHARS_MAX = 64;
export const USERNAME_CHARS_MAX = 32;
export const PASSWORD_CHARS_MIN = 8;

/** Messages asked for when the reader scrolls up, or when a hole is filled (the server allows 1–200). */
export const HISTORY_PAGE = 50;
export const GAP_PAGE = 200;
/** Public rooms of an earlier visit that are joined again by themselves: one request each. */
export const REJOIN_ROOMS_MAX = 50;

/** Messages held of the room that is being read; beyond it paging back stops. About 1 KiB each. */
export const OPEN_ROOM_MESSAGES_MAX = 3000;
/** Messages held of every other room: enough to open it without asking. */
export const IDLE_ROOM_MESSAGES_MAX = 200;
/** Messages that wait above a hole; more are forgotten and asked for again. */
export const AHEAD_MESSAGES_MAX = 1000;
/** Messages of ours that wait for an acknowledgement, per room; beyond it the composer refuses. */
export const OUTBOX_MESSAGES_MAX = 500;
/** Fruitless answers to the same hole before the room's newest page replaces what is held. */
export const GAP_TRIES_MAX = 3;

/** Silence after which a connection attempt, or a request on an open connection, counts as dead. */
export const CONNECT_TIMEOUT_MS = 15_000;
export const REQUEST_TIMEOUT_MS = 30_000;
/** An open connection that heard nothing for this long is probed when the page wakes up. */
export const WAKE_PROBE_AFTER_MS = 45_000;

export const BACKOFF_BASE_MS = 1_000;
export const BACKOFF_CAP_MS = 30_000;
/** A connection that lived this long makes the next back-off start small again. */
export const STABLE_AFTER_MS = 10_000;
/** Pause before a request is repeated when the server named none. */
export const RETRY_MIN_MS = 1_000;
