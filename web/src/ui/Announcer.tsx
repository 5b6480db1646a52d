/**
 * Reads the newest message of others to a screen reader.
 *
 * The list itself is no live region: pages of history that are put above would be read out too.
 */
import { styled } from "@mui/material/styles";
import { useState } from "react";
import type { Message } from "../protocol/frames";

export function Announcer({ messages, myId }: { messages: readonly Message[]; myId: string }) {
  const latest = messages.at(-1);
  // What was there when the room was opened is no news.
  const [opened] = useState(latest?.seq ?? 0);
  const isNews = latest !== undefined && latest.seq > opened && latest.user.id !== myId;
  return (
    <Hidden role="status" aria-live="polite">
      {isNews && `${latest.user.username}: ${latest.content}`}
    </Hidden>
  );
}

const Hidden = styled("div")({
  position: "absolute",
  width: 1,
  height: 1,
  overflow: "hidden",
  clipPath: "inset(50%)",
  whiteSpace: "nowrap",
});
