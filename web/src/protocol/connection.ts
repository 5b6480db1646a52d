/**
 * The life of the connection: when to open a socket, when to come back, when to stay away.
 *
 * Knows codes and times, no frames and no rooms. Calling order: a command or `handle*`, then `pollAction` until it
 * is empty, then arm one timer for `pollTimeout` and answer it with `handleTick`. After a `close` action the shell
 * forgets that socket at once; none of its later events is handed in.
 */
import { Backoff, type Random } from "./backoff";
import { closeRule } from "./close";
import { CONNECT_TIMEOUT_MS, STABLE_AFTER_MS } from "./limits";

export type ConnectionState =
  | { readonly name: "idle" }
  /** A socket opens, or is open and waits for `hello`. */
  | { readonly name: "connecting"; readonly since: number }
  | { readonly name: "open"; readonly since: number }
  | { readonly name: "reconnecting"; readonly retryAt: number; readonly message: string }
  | { readonly name: "signed-out"; readonly message: string | undefined }
  | { readonly name: "failed"; readonly message: string };

export type SocketAction = "connect" | "close";

export class Connection {
  #state: ConnectionState = { name: "idle" };
  #actions: SocketAction[] = [];
  /** A drain notice: the moment at which this connection is exchanged for a new one. */
  #moveAt: number | undefined;
  /** The person asked to log out: the server closes us, and nobody needs to be told why. */
  #leaving = false;
  #everOpen = false;
  #ended = false;
  readonly #pauses: Backoff;

  constructor(private readonly random: Random) {
    this.#pauses = new Backoff(random);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** First connection, a new login, or "try now" while waiting or failed. */
  connect(now: number): void {
    if (this.#state.name === "connecting" || this.#state.name === "open") return;
    if (this.#state.name !== "reconnecting") this.#pauses.reset();
    this.#open(now);
  }

  /** The person logs out: a close that follows is expected. `false` when the request for it failed. */
  leave(leaving: boolean): void {
    this.#leaving = leaving;
  }

  /** The session has ended by our own wish. */
  signOut(): void {
    this.#drop();
    this.#leaving = false;
    this.#everOpen = false;
    this.#state = { name: "signed-out", message: undefined };
  }

  /** Gives this connection up as dead and comes back like after a loss. */
  abandon(now: number): void {
    if (this.#state.name !== "connecting" && this.#state.name !== "open") return;
    this.#actions.push("close");
    this.handleClosed(1006, now);
  }

  handleHello(now: number): void {
    this.#everOpen = true;
    this.#state = { name: "open", since: now };
  }

  handleClosed(code: number, now: number): void {
    const before = this.#state;
    if (before.name !== "connecting" && before.name !== "open") return;
    this.#ended = true;
    if (before.name === "open" && now - before.since >= STABLE_AFTER_MS) this.#pauses.reset();
    const moveAt = this.#moveAt;
    this.#moveAt = undefined;
    const rule = closeRule(code);
    switch (rule.then) {
      case "sign-in":
        this.#state = { name: "signed-out", message: this.#farewell(code, rule.message) };
        this.#everOpen = false;
        this.#leaving = false;
        return;
      case "stop":
        this.#state = { name: "failed", message: rule.message };
        return;
      case "at-once":
        // Only once: a server that sends everybody away again is not helped by a tight loop.
        if (this.#pauses.attempts === 0) {
          this.#pauses.skip();
          this.#open(now);
          return;
        }
        break;
      case "back-off":
        break;
    }
    const retryAt = moveAt === undefined ? now + this.#pauses.next() : Math.max(moveAt, now);
    this.#state = { name: "reconnecting", retryAt, message: rule.message };
  }

  /** The server will go away: move to another one at a random moment of its window. */
  handleDraining(minMs: number, maxMs: number, now: number): void {
    if (this.#state.name !== "open") return;
    this.#moveAt = now + minMs + Math.floor(this.random() * Math.max(0, maxMs - minMs));
  }

  /** The network came back: waiting longer helps nobody. */
  handleOnline(now: number): void {
    if (this.#state.name === "reconnecting") this.#open(now);
  }

  handleTick(now: number): void {
    const state = this.#state;
    if (state.name === "reconnecting" && now >= state.retryAt) this.#open(now);
    else if (state.name === "connecting" && now >= state.since + CONNECT_TIMEOUT_MS) this.abandon(now);
    else if (state.name === "open" && this.#moveAt !== undefined && now >= this.#moveAt) this.#move(now);
  }

  pollAction(): SocketAction | undefined {
    return this.#actions.shift();
  }

  /** `true` once for every connection that ended, however it did: what was in flight on it is unanswered. */
  pollEnded(): boolean {
    const ended = this.#ended;
    this.#ended = false;
    return ended;
  }

  pollTimeout(): number | undefined {
    switch (this.#state.name) {
      case "reconnecting":
        return this.#state.retryAt;
      case "connecting":
        return this.#state.since + CONNECT_TIMEOUT_MS;
      case "open":
        return this.#moveAt;
      default:
        return undefined;
    }
  }

  #open(now: number): void {
    this.#state = { name: "connecting", since: now };
    this.#actions.push("connect");
  }

  #move(now: number): void {
    this.#drop();
    this.#open(now);
  }

  #drop(): void {
    this.#moveAt = undefined;
    if (this.#state.name !== "connecting" && this.#state.name !== "open") return;
    this.#actions.push("close");
    this.#ended = true;
  }

  /** A first visit without a session needs no explanation, an ended one does. */
  #farewell(code: number, message: string): string | undefined {
    if (this.#leaving) return undefined;
    if (code === 1008) return this.#everOpen ? "Your session has ended. Please log in again." : undefined;
    return message;
  }
}
