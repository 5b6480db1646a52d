/** Somebody in front of a browser of their own: what they do and what they see. */
import { watchPage } from "./browser.mjs";

const TIMEOUT_MS = 20_000;

export class Person {
  constructor(name, context, page, url) {
    Object.assign(this, { name, context, page, url });
    this.email = `${name}@example.org`;
    this.password = `secret of ${name}`;
    this.pageErrors = [];
    page.on("pageerror", (error) => this.pageErrors.push(String(error)));
  }

  static async arrive(browser, name, url) {
    const context = await browser.newContext({ viewport: { width: 1100, height: 760 } });
    context.setDefaultTimeout(TIMEOUT_MS);
    await context.addInitScript(watchPage);
    const page = await context.newPage();
    const person = new Person(name, context, page, url);
    await page.goto(url);
    return person;
  }

  see(testId) {
    return this.page.getByTestId(testId);
  }

  async register({ username = this.name, email = this.email } = {}) {
    await this.page.getByLabel("Name", { exact: true }).fill(username);
    await this.page.getByLabel("Email").fill(email);
    await this.page.getByLabel("Password", { exact: true }).fill(this.password);
    await this.page.getByRole("button", { name: "Create account" }).click();
  }

  async logIn(password = this.password) {
    await this.page.getByLabel("Email").fill(this.email);
    await this.page.getByLabel("Password", { exact: true }).fill(password);
    await this.page.getByRole("button", { name: "Log in" }).click();
  }

  async enterRoom(name) {
    await this.roomItem(name).click();
    await this.page.getByTestId("room-title").getByText(name, { exact: true }).waitFor();
    await this.see("message-list").waitFor();
  }

  roomItem(name) {
    return this.page.locator(`[data-testid="room-item"][data-room-name=${JSON.stringify(name)}]`);
  }

  async createRoom(name) {
    await this.see("create-room").click();
    await this.page.getByLabel("Name of the room").fill(name);
    await this.page.getByRole("button", { name: "Create", exact: true }).click();
  }

  async say(text) {
    await this.see("composer").fill(text);
    await this.see("composer").press("Enter");
  }

  /** Waits until this text stands in the open room as a stored message. */
  async sees(text) {
    await this.see("message").getByText(text, { exact: true }).first().waitFor();
  }

  /** The stored messages on the page, oldest first. */
  messages() {
    return this.page.$$eval('[data-testid="message"]', (rows) =>
      rows.map((row) => ({ seq: Number(row.dataset.seq), content: row.querySelector('[data-testid="content"]').textContent })),
    );
  }

  /** Waits until nothing is under way any more and the connection is open. */
  async settles() {
    await this.waitForState("open");
    await this.page.waitForFunction(() => document.querySelectorAll('[data-testid="pending"]').length === 0);
  }

  async waitForState(state) {
    await this.page.locator(`[data-testid="connection-state"][data-state="${state}"]`).first().waitFor();
  }

  /** Waits until the page has shown, however shortly, that the connection was gone. */
  async showsOutage() {
    await this.page.waitForFunction(() => window.e2e.states.some((state) => state === "reconnecting" || state === "connecting"));
  }

  forgetStates() {
    return this.page.evaluate(() => void window.e2e.states.splice(0));
  }

  /** The network goes away and takes the sockets with it. */
  async loseNetwork() {
    await this.context.setOffline(true);
    await this.page.evaluate(() => window.e2e.loseSockets());
  }

  async regainNetwork() {
    await this.context.setOffline(false);
  }

  /** Scrolls up once; waits for older messages; returns how far the top message moved on the screen. */
  scrollUp() {
    return this.page.evaluate(async (timeoutMs) => {
      const list = document.querySelector('[data-testid="message-list"]');
      const rows = () => list.querySelectorAll('[data-testid="message"]');
      const first = rows()[0];
      const count = rows().length;
      list.scrollTop = 0;
      const before = first.getBoundingClientRect().top;
      const deadline = performance.now() + timeoutMs;
      while (rows().length === count) {
        if (performance.now() > deadline) throw new Error("no older messages came");
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return Math.abs(first.getBoundingClientRect().top - before);
    }, TIMEOUT_MS);
  }
}
