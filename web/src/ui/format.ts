/** Dates and times in the reader's own language and zone. */

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_WITH_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export function formatTime(timestamp: number): string {
  return TIME.format(timestamp);
}

export function formatFull(timestamp: number): string {
  return FULL.format(timestamp);
}

/** "Today", "Yesterday", a day of this year, or a full date. */
export function formatDay(timestamp: number, now: number): string {
  const days = dayNumber(now) - dayNumber(timestamp);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const isThisYear = new Date(timestamp).getFullYear() === new Date(now).getFullYear();
  return (isThisYear ? DAY : DAY_WITH_YEAR).format(timestamp);
}

/** The time for today, else the day: what a list of rooms has room for. */
export function formatShort(timestamp: number, now: number): string {
  return dayNumber(timestamp) === dayNumber(now) ? formatTime(timestamp) : SHORT_DAY.format(timestamp);
}

/** Days in the local calendar, so that a day of 23 or 25 hours is still one. */
export function dayNumber(timestamp: number): number {
  const date = new Date(timestamp);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000);
}
