/** What the forms refuse before the server has to. Each returns the sentence to show, or nothing. */
import { PASSWORD_CHARS_MIN, ROOM_NAME_CHARS_MAX, USERNAME_CHARS_MAX } from "../protocol/limits";
import { charLength } from "../protocol/text";

export function usernameProblem(username: string): string | undefined {
  const length = charLength(username.trim());
  if (length === 0) return "Choose a name.";
  if (length > USERNAME_CHARS_MAX) return `At most ${USERNAME_CHARS_MAX} characters; this has ${length}.`;
  return undefined;
}

/** The shape only: whether the address exists is for the server to find out. */
export function emailProblem(email: string): string | undefined {
  if (email.trim() === "") return "Enter your email address.";
  return /^[^\s@]+@[^\s@]+\.[^\s@.]+$/.test(email.trim()) ? undefined : "This does not look like an email address.";
}

export function newPasswordProblem(password: string): string | undefined {
  return charLength(password) < PASSWORD_CHARS_MIN ? `At least ${PASSWORD_CHARS_MIN} characters.` : undefined;
}

export function passwordProblem(password: string): string | undefined {
  return password === "" ? "Enter your password." : undefined;
}

export function roomNameProblem(roomName: string): string | undefined {
  const length = charLength(roomName.trim());
  if (length === 0) return "Give the room a name.";
  if (length > ROOM_NAME_CHARS_MAX) return `At most ${ROOM_NAME_CHARS_MAX} characters; this has ${length}.`;
  return undefined;
}

/** The server speaks in fragments ("content too long"); a person reads sentences. */
export function asSentence(message: string): string {
  const text = message.trim();
  if (text === "") return "Something went wrong.";
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}
