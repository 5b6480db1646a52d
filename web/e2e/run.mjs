/**
 * Two people in two browsers against a running corecast, at CORECAST_URL (default http://localhost:8080).
 *
 * CORECAST_RESTART_CMD, when given, is run by a shell to kill and restart the server; without it one browser loses
 * its network instead. Ends with a non-zero code and a screenshot of both in e2e/out when something is not as it
 * should be.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launchBrowser } from "./browser.mjs";
import { Person } from "./person.mjs";

const URL_OF_SERVER = process.env.CORECAST_URL ?? "http://localhost:8080";
const RESTART = process.env.CORECAST_RESTART_CMD;
const OUT = fileURLToPath(new URL("./out/", import.meta.url));
const LONG = 90;

const run = Date.now().toString(36);
const ROOM = `room ${run}`;

const steps = {
  "a visitor without a session gets the login page": async ({ ann, bob }) => {
    for (const person of [ann, bob]) await person.see("login-form").waitFor();
  },

  "registering checks its fields": async ({ ann }) => {
    await ann.page.getByRole("link", { name: "Create an account" }).click();
    await ann.register({ username: "x".repeat(33), email: "nobody" });
    await ann.page.getByText("At most 32 characters; this has 33.").waitFor();
    await ann.page.getByText("This does not look like an email address.").waitFor();
  },

  "both register and are in the chat": async ({ ann, bob }) => {
    await ann.register();
    await ann.waitForState("open");
    assert.equal(await ann.see("me").textContent(), ann.name);
    await bob.page.getByRole("link", { name: "Create an account" }).click();
    await bob.register({ username: ann.name });
    await bob.page.getByText("This name is taken.").waitFor();
    await bob.register({ email: ann.email });
    await bob.page.getByText("There is an account with this address already.").waitFor();
    await bob.register();
    await bob.waitForState("open");
  },

  "both talk in General": async ({ ann, bob }) => {
    for (const person of [ann, bob]) await person.enterRoom("General");
    await ann.say(`hello from ann ${run}`);
    await bob.sees(`hello from ann ${run}`);
    await bob.say(`hello from bob ${run}`);
    await ann.sees(`hello from bob ${run}`);
    await ann.say("one line\nand \"another\" <b>of</b> 🙂");
    await bob.sees("one line and \"another\" <b>of</b> 🙂");
    for (const person of [ann, bob]) await person.settles();
  },

  "a new room appears everywhere": async ({ ann, bob }) => {
    await ann.createRoom(ROOM);
    await ann.page.getByTestId("room-title").getByText(ROOM, { exact: true }).waitFor();
    await bob.roomItem(ROOM).waitFor();
  },

  "a taken name is told": async ({ bob }) => {
    await bob.createRoom(ROOM);
    await bob.page.getByText(`“${ROOM}” is taken. Choose another name.`).waitFor();
    await bob.page.getByRole("button", { name: "Cancel" }).click();
    await bob.page.getByRole("dialog").waitFor({ state: "detached" });
  },

  "what others write is counted as unread": async ({ ann, bob }) => {
    await bob.enterRoom(ROOM);
    await ann.enterRoom("General");
    await bob.say("line 1");
    await ann.roomItem(ROOM).getByTestId("unread").getByText("1", { exact: true }).waitFor();
    await ann.enterRoom(ROOM);
    await ann.roomItem(ROOM).getByTestId("unread").waitFor({ state: "detached" });
  },

  [`${LONG} messages arrive in order`]: async ({ ann, bob }) => {
    for (let line = 2; line <= LONG; line += 1) await ann.say(`line ${line}`);
    await bob.sees(`line ${LONG}`);
    for (const person of [ann, bob]) await person.settles();
    expectLines(await bob.messages(), LONG);
  },

  "a reload goes straight to the room": async ({ bob }) => {
    await bob.page.reload();
    await bob.page.getByTestId("room-title").getByText(ROOM, { exact: true }).waitFor();
    await bob.sees(`line ${LONG}`);
    assert.ok(!(await bob.see("login-form").isVisible()), "the login page is shown");
  },

  "scrolling up leads to the first message": async ({ bob }) => {
    for (let page = 0; (await bob.messages())[0].seq > 1; page += 1) {
      assert.ok(page < LONG, "the first message never came");
      const moved = await bob.scrollUp();
      assert.ok(moved <= 2, `what was read moved by ${moved} px`);
    }
    expectLines(await bob.messages(), LONG);
  },

  "news below are counted, not jumped to": async ({ ann, bob }) => {
    await bob.page.evaluate(() => void (document.querySelector('[data-testid="message-list"]').scrollTop = 0));
    await ann.say(`line ${LONG + 1}`);
    await bob.see("jump-to-latest").getByText("1 new message").waitFor();
    await bob.see("jump-to-latest").click();
    await bob.see("jump-to-latest").waitFor({ state: "detached" });
    await bob.sees(`line ${LONG + 1}`);
  },

  "a lost connection is shown, and nothing is lost or doubled": async ({ ann, bob }) => {
    for (const person of [ann, bob]) await person.forgetStates();
    let line = LONG + 1;
    const outage = RESTART ? restartServer() : ann.loseNetwork();
    await Promise.all([ann.showsOutage(), ann.say(`line ${(line += 1)}`), outage]);
    if (!RESTART) {
      await ann.see("pending").getByText(`line ${line}`, { exact: true }).waitFor();
      // Bob speaks meanwhile; his lines are stored first.
      for (const text of ["meanwhile 1", "meanwhile 2"]) await bob.say(text);
      await bob.sees("meanwhile 2");
      await ann.regainNetwork();
    }
    for (const person of [ann, bob]) await person.settles();
    await bob.sees(`line ${line}`);
    await bob.say(`line ${(line += 1)}`);
    await ann.sees(`line ${line}`);
    await bob.settles();
    for (const person of [ann, bob]) {
      const messages = await person.messages();
      expectConsecutive(messages);
      expectLines(messages.filter(({ content }) => content.startsWith("line ")), line, "content");
    }
    assert.deepEqual((await ann.messages()).slice(-5), (await bob.messages()).slice(-5));
  },

  "logging out leads to the login page": async ({ ann }) => {
    await ann.see("log-out").click();
    await ann.see("login-form").waitFor();
    await ann.page.reload();
    await ann.see("login-form").waitFor();
  },

  "a wrong password is told, the right one opens the chat": async ({ ann }) => {
    await ann.logIn("not the password");
    await ann.see("form-error").getByText("Email and password do not match.").waitFor();
    await ann.logIn();
    await ann.waitForState("open");
    await ann.enterRoom(ROOM);
  },

  "no script failed": async ({ ann, bob }) => {
    for (const person of [ann, bob]) assert.deepEqual(person.pageErrors, []);
  },
};

/** `line 1 … line last`, each once, in order; a page may begin later unless every number is asked for. */
function expectLines(messages, last) {
  const lines = messages.map(({ content }) => Number(content.replace("line ", "")));
  const first = lines[0];
  assert.deepEqual(lines, Array.from({ length: last - first + 1 }, (_, index) => first + index), "lines are missing, doubled or out of order");
}

function expectConsecutive(messages) {
  messages.forEach(({ seq }, index) => assert.equal(seq, messages[0].seq + index, "the room's numbers have a hole or a repeat"));
}

function restartServer() {
  return new Promise((resolve, reject) => {
    const child = spawn("sh", ["-c", RESTART], { stdio: "inherit" });
    child.on("error", reject);
    child.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`CORECAST_RESTART_CMD ended with ${code}`))));
  });
}

async function saveScreenshots(people) {
  await mkdir(OUT, { recursive: true });
  for (const person of Object.values(people)) {
    await person.page.screenshot({ path: `${OUT}${person.name}.png` }).catch(() => undefined);
  }
}

async function main() {
  const browser = await launchBrowser();
  const people = {};
  let passed = 0;
  let current = "open the page";
  try {
    people.ann = await Person.arrive(browser, `ann-${run}`, URL_OF_SERVER);
    people.bob = await Person.arrive(browser, `bob-${run}`, URL_OF_SERVER);
    for (const [name, step] of Object.entries(steps)) {
      current = name;
      await step(people);
      console.log(`ok   ${name}`);
      passed += 1;
    }
  } catch (error) {
    console.error(`FAIL ${current}\n${error instanceof Error ? error.stack : error}`);
    await saveScreenshots(people);
    console.error("screenshots: web/e2e/out");
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
  console.log(`${passed} passed, ${process.exitCode ? 1 : 0} failed`);
}

await main();
