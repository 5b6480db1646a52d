/** Starts the system's Chromium; nothing is downloaded. CHROMIUM names another one. */
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--disable-default-apps",
  "--disable-domain-reliability",
  "--disable-client-side-phishing-detection",
];

export function launchBrowser() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: FLAGS });
}

/**
 * Runs in the page before its own scripts: keeps the sockets within reach, so that a test can lose them, and every
 * state of the connection that was shown, so that a short one is not missed.
 */
export function watchPage() {
  const sockets = new Set();
  const states = [];
  window.e2e = {
    states,
    loseSockets: () => sockets.forEach((socket) => socket.close()),
  };
  window.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      // A development server talks to the page over a socket of its own.
      if (new URL(url, location.href).pathname !== "/api/ws") return;
      sockets.add(this);
      this.addEventListener("close", () => sockets.delete(this));
    }
  };
  const note = () => {
    const state = document.querySelector('[data-testid="connection-state"]')?.dataset.state;
    if (state && state !== states.at(-1)) states.push(state);
  };
  new MutationObserver(note).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
}
