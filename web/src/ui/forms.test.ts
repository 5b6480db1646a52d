import { describe, expect, it } from "vitest";
import { utf8Length } from "../protocol/text";
import { formatDay } from "./format";
import { formatRoute, parseRoute } from "./hashRoute";
import { asSentence, emailProblem, newPasswordProblem, roomNameProblem, usernameProblem } from "./validation";

describe("validation", () => {
  it.each([
    ["", false],
    ["   ", false],
    ["a", true],
    ["x".repeat(32), true],
    ["x".repeat(33), false],
    ["🙂".repeat(32), true],
    ["🙂".repeat(33), false],
  ])("username %j", (username, isFine) => {
    expect(usernameProblem(username) === undefined).toBe(isFine);
  });

  it.each([
    ["a@b.c", true],
    [" ann@example.org ", true],
    ["", false],
    ["ann", false],
    ["ann@example", false],
    ["ann@example.", false],
    ["a b@example.org", false],
    ["a@b@example.org", false],
  ])("email %j", (email, isFine) => {
    expect(emailProblem(email) === undefined).toBe(isFine);
  });

  it("a password has at least 8 characters, a room name 1 to 64", () => {
    expect(newPasswordProblem("x".repeat(7))).toBeDefined();
    expect(newPasswordProblem("x".repeat(8))).toBeUndefined();
    expect(roomNameProblem(" ")).toBeDefined();
    expect(roomNameProblem("x".repeat(64))).toBeUndefined();
    expect(roomNameProblem("x".repeat(65))).toBeDefined();
  });

  it("a fragment becomes a sentence", () => {
    expect(asSentence("content too long")).toBe("Content too long.");
    expect(asSentence("Wait!")).toBe("Wait!");
    expect(asSentence("")).toBe("Something went wrong.");
  });
});

describe("lengths and dates", () => {
  it.each(["", "a", "é", "€", "🙂", "a\u0000b", "mixed é€🙂"])("utf8Length(%j) is what an encoder makes", (text) => {
    expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
  });

  it("a lone surrogate counts as its replacement", () => {
    expect(utf8Length("\ud800")).toBe(new TextEncoder().encode("\ud800").length);
  });

  it("the last two days have names", () => {
    const now = new Date(2026, 2, 10, 0, 30).getTime();
    expect(formatDay(now, now)).toBe("Today");
    expect(formatDay(new Date(2026, 2, 9, 23, 59).getTime(), now)).toBe("Yesterday");
    expect(formatDay(new Date(2025, 2, 9).getTime(), now)).toContain("2025");
  });
});

describe("routes", () => {
  it.each(["room-001", "a/b", "ü 🙂", "%"])("lead to room %j and back", (roomId) => {
    expect(parseRoute(formatRoute({ name: "room", roomId }))).toEqual({ name: "room", roomId });
  });

  it.each(["", "#", "#/", "#/rooms/", "#/rooms/%E0%A4%A", "#/elsewhere"])("%j is home", (hash) => {
    expect(parseRoute(hash)).toEqual({ name: "home" });
  });
});
