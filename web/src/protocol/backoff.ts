/**
 * Exponential back-off with full jitter: the n-th pause is uniform in [0, min(cap, base · 2ⁿ)).
 *
 * Full jitter because a gateway that dies sends thousands of browsers away in the same millisecond; equal or
 * "decorrelated" pauses would bring them back in waves.
 */
import { BACKOFF_BASE_MS, BACKOFF_CAP_MS } from "./limits";

/** A number in [0, 1): `Math.random` in the browser, a seeded generator in tests. */
export type Random = () => number;

export class Backoff {
  #attempts = 0;

  constructor(private readonly random: Random) {}

  /** Pauses taken since the last reset. */
  get attempts(): number {
    return this.#attempts;
  }

  /** The next pause in milliseconds. */
  next(): number {
    // 2 ** 5 already passes the cap; the bound keeps the power finite after days of outage.
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(this.#attempts, 16));
    this.#attempts += 1;
    return Math.floor(this.random() * ceiling);
  }

  /** Counts an attempt that needs no pause, so that a second one in a row gets one. */
  skip(): void {
    this.#attempts += 1;
  }

  reset(): void {
    this.#attempts = 0;
  }
}
