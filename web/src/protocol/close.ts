/**
 * Close codes of the WebSocket: what each one means and whether the browser may come back by itself.
 *
 * The same table exists on the server; a code that is not in it counts as a lost connection.
 */

/** What to do after a close. */
export type AfterClose =
  /** Reconnect without a pause. */
  | "at-once"
  /** Reconnect after a pause with full jitter. */
  | "back-off"
  /** Show the login page. */
  | "sign-in"
  /** Stay away until the person asks for it. */
  | "stop";

export interface CloseRule {
  readonly name: string;
  readonly then: AfterClose;
  /** One sentence for the person in front of the screen. */
  readonly message: string;
}

const TABLE: ReadonlyMap<number, CloseRule> = new Map([
  [1000, { name: "normal", then: "back-off", message: "The server closed the connection." }],
  [1001, { name: "going away", then: "back-off", message: "The server is restarting." }],
  [1002, { name: "protocol error", then: "back-off", message: "The server did not understand this page." }],
  [1003, { name: "unsupported data", then: "back-off", message: "The server did not understand this page." }],
  [1006, { name: "connection lost", then: "back-off", message: "The connection was lost." }],
  [1007, { name: "invalid text", then: "back-off", message: "The server could not read a message of this page." }],
  [1008, { name: "authentication", then: "sign-in", message: "Please log in." }],
  [1009, { name: "too large", then: "back-off", message: "The server refused a message as too large." }],
  [1011, { name: "server error", then: "back-off", message: "Something went wrong on the server." }],
  [1012, { name: "restart", then: "at-once", message: "The server is restarting." }],
  [1013, { name: "try again later", then: "back-off", message: "The server is busy." }],
  [4429, { name: "too many", then: "back-off", message: "Too much at once. Slowing down." }],
  [4501, { name: "signed out", then: "sign-in", message: "You were logged out." }],
  [4503, { name: "removed", then: "stop", message: "You were removed by the server." }],
]);

const LOST: CloseRule = { name: "connection lost", then: "back-off", message: "The connection was lost." };
const PAUSE: CloseRule = { name: "pause", then: "back-off", message: "The server asked for a pause." };
const FINAL: CloseRule = { name: "closed for good", then: "stop", message: "The server closed the connection." };

export function closeRule(code: number): CloseRule {
  const known = TABLE.get(code);
  if (known) return known;
  if (code >= 4400 && code <= 4499) return PAUSE;
  if (code >= 4500 && code <= 4599) return FINAL;
  return LOST;
}
