/**
 * Drives the client state machine with a real WebSocket, a real timer and the page's events.
 *
 * Decides nothing: every branch that matters is in `src/protocol`. The user interface reads `snapshot()` and calls
 * the commands; it never sees the socket.
 */
import { Client, type ClientEvent } from "../protocol/client";
import { SUBPROTOCOL } from "../protocol/frames";
import type { ClientView } from "../protocol/view";
import { loadMemory, MemoryWriter } from "./memory";

/** Views a second shown at most: a busy room must not cost a render per frame. */
const NOTIFY_EVERY_MS = 40;
/** `setTimeout` overflows above this and fires at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export class BrowserClient {
  readonly #client: Client;
  readonly #memory = new MemoryWriter();
  readonly #listeners = new Set<() => void>();
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #notifyTimer: ReturnType<typeof setTimeout> | undefined;
  #notifiedAt = 0;
  #snapshot: ClientView;

  constructor() {
    this.#client = new Client({ random: Math.random, idPrefix: randomPrefix(), memory: loadMemory() });
    this.#snapshot = this.#client.view();
  }

  /** Opens the connection and begins to listen to the page. Called once, for the life of the page. */
  start(): void {
    window.addEventListener("online", () => this.#handle({ type: "online" }));
    window.addEventListener("pagehide", () => this.#memory.flush());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#handle({ type: "woke" });
      else this.#memory.flush();
    });
    this.run((client, now) => client.connect(now));
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly snapshot = (): ClientView => this.#snapshot;

  /** The clock of `retryAt`: milliseconds since 1970 that never run backwards. */
  now(): number {
    return performance.timeOrigin + performance.now();
  }

  /** Gives a command to the client and carries out what follows from it. */
  run<Result>(command: (client: Client, now: number) => Result): Result {
    const result = command(this.#client, this.now());
    this.#drive();
    return result;
  }

  #handle(event: ClientEvent): void {
    this.#client.handle(event, this.now());
    this.#drive();
  }

  #drive(): void {
    this.#driveActions();
    this.#driveTransmit();
    this.#driveTimer();
    for (let line = this.#client.pollLog(); line; line = this.#client.pollLog()) console.info(`corecast: ${line}`);
    this.#notify();
  }

  #driveActions(): void {
    for (let action = this.#client.pollAction(); action; action = this.#client.pollAction()) {
      this.#forgetSocket();
      if (action === "connect") this.#openSocket();
    }
  }

  #driveTransmit(): void {
    for (let text = this.#client.pollTransmit(this.now()); text; text = this.#client.pollTransmit(this.now())) {
      this.#socket?.send(text);
    }
  }

  #driveTimer(): void {
    clearTimeout(this.#timer);
    const due = this.#client.pollTimeout();
    if (due === undefined) return;
    const wait = Math.min(Math.max(0, due - this.now()), TIMER_MAX_MS);
    this.#timer = setTimeout(() => this.#handle({ type: "tick" }), wait);
  }

  #openSocket(): void {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/ws`, SUBPROTOCOL);
    socket.onopen = () => this.#handle({ type: "opened" });
    socket.onmessage = ({ data }) => {
      // A binary frame can only be another system's push; there is nothing here that could read it.
      if (typeof data === "string") this.#handle({ type: "text", text: data });
    };
    socket.onclose = ({ code }) => {
      this.#forgetSocket();
      this.#handle({ type: "closed", code });
    };
    this.#socket = socket;
  }

  /** The socket may linger in its closing handshake; nothing it says then concerns the client any more. */
  #forgetSocket(): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #notify(): void {
    if (this.#notifyTimer !== undefined) return;
    const wait = this.#notifiedAt + NOTIFY_EVERY_MS - this.now();
    if (wait <= 0) this.#publish();
    else this.#notifyTimer = setTimeout(() => this.#publish(), wait);
  }

  #publish(): void {
    this.#notifyTimer = undefined;
    this.#notifiedAt = this.now();
    const view = this.#client.view();
    if (view === this.#snapshot) return;
    this.#snapshot = view;
    this.#memory.note(view);
    for (const listener of this.#listeners) listener();
  }
}

/** Not `crypto.randomUUID`: that exists on secure origins only, and a test set-up may be plain HTTP. */
function randomPrefix(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
