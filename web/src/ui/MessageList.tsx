/**
 * The messages of a room. Scrolling up loads older ones without moving what is read; at the bottom the list follows
 * what arrives, above it a chip counts it.
 */
import Box from "@mui/material/Box";
import Button from "@mui/material/Button";
import CircularProgress from "@mui/material/CircularProgress";
import Fab from "@mui/material/Fab";
import { styled } from "@mui/material/styles";
import Typography from "@mui/material/Typography";
import { type Ref, useCallback, useEffect, useImperativeHandle, useMemo, useState } from "react";
import type { User } from "../protocol/frames";
import type { RoomView } from "../protocol/view";
import { Announcer } from "./Announcer";
import { useClient } from "./clientContext";
import { DownIcon } from "./icons";
import { DayRow, MessageRow, PendingRow, UnreadRow } from "./MessageRow";
import { type Row, rowsOf } from "./rows";
import { useStickyScroll } from "./useStickyScroll";
import { asSentence } from "./validation";

/** Older messages are asked for this many pixels before the reader reaches the end. */
const LOAD_OLDER_WITHIN_PX = 600;

export interface MessageListHandle {
  jumpToLatest(): void;
}

interface MessageListProps {
  readonly room: RoomView;
  readonly me: User;
  readonly ref: Ref<MessageListHandle>;
}

export function MessageList({ room, me, ref }: MessageListProps) {
  const client = useClient();
  // Where the unread began when the room was opened: the mark must not run away while one reads.
  const [unreadAfter] = useState(room.unread > 0 ? room.readSeq : undefined);
  const { messages, pending } = room;
  const rows = useMemo(() => rowsOf({ messages, pending, myId: me.id, unreadAfter }), [messages, pending, me.id, unreadAfter]);
  const scroll = useStickyScroll(rows);
  const { isAtBottom, jumpToBottom } = scroll;
  const newCount = useSeen(room, isAtBottom);
  useImperativeHandle(ref, () => ({ jumpToLatest: jumpToBottom }), [jumpToBottom]);

  const canLoad = room.older.name === "available";
  const loadOlder = useCallback(() => client.run((core, now) => core.loadOlder(room.id, now)), [client, room.id]);
  useEffect(() => {
    if (canLoad && scroll.top < LOAD_OLDER_WITHIN_PX) loadOlder();
  }, [canLoad, scroll.top, loadOlder, rows]);

  return (
    <Box sx={{ flex: 1, minHeight: 0, position: "relative" }}>
      <Scroller ref={scroll.listRef} onScroll={scroll.handleScroll} role="log" aria-live="off" aria-label={`Messages in ${room.name}`} tabIndex={0} data-testid="message-list">
        <Rows>
          <OlderRow room={room} onLoad={loadOlder} />
          {rows.map((row) => (
            <RowView key={row.key} row={row} roomId={room.id} />
          ))}
        </Rows>
      </Scroller>
      {!isAtBottom && (
        <Fab
          size="small"
          variant={newCount > 0 ? "extended" : "circular"}
          color={newCount > 0 ? "primary" : "default"}
          aria-label={newCount > 0 ? undefined : "Jump to the latest message"}
          data-testid="jump-to-latest"
          onClick={jumpToBottom}
          sx={{ position: "absolute", bottom: 12, left: "50%", transform: "translateX(-50%)", boxShadow: 3, gap: 0.5 }}
        >
          <DownIcon fontSize="small" />
          {newCount > 0 && (newCount === 1 ? "1 new message" : `${newCount} new messages`)}
        </Fab>
      )}
      <Announcer messages={messages} myId={me.id} />
    </Box>
  );
}

/** Marks as read what was on the screen of somebody who looked; returns how many came below the fold. */
function useSeen(room: RoomView, isAtBottom: boolean): number {
  const client = useClient();
  const [seen, setSeen] = useState(room.lastSeq);
  const { id, lastSeq } = room;
  useEffect(() => {
    const look = () => {
      if (!isAtBottom || document.visibilityState !== "visible") return;
      setSeen(lastSeq);
      client.run((core) => core.markRead(id, lastSeq));
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, [client, id, lastSeq, isAtBottom]);
  return Math.max(0, lastSeq - seen);
}

function RowView({ row, roomId }: { row: Row; roomId: string }) {
  switch (row.kind) {
    case "day":
      return <DayRow timestamp={row.timestamp} />;
    case "unread":
      return <UnreadRow />;
    case "message":
      return <MessageRow message={row.message} isOwn={row.isOwn} startsGroup={row.startsGroup} />;
    case "pending":
      return <PendingRow roomId={roomId} pending={row.pending} startsGroup={row.startsGroup} />;
  }
}

function OlderRow({ room, onLoad }: { room: RoomView; onLoad: () => void }) {
  const { older } = room;
  return (
    <Box component="li" data-testid="older" data-state={older.name} sx={{ minHeight: 52, display: "grid", placeItems: "center" }}>
      {older.name === "loading" && <CircularProgress size={20} aria-label="Loading older messages" />}
      {older.name === "available" && (
        <Button size="small" onClick={onLoad}>
          Load older messages
        </Button>
      )}
      {older.name === "failed" && (
        <Typography variant="body2" color="error">
          {asSentence(older.message)} <Button onClick={onLoad}>Try again</Button>
        </Typography>
      )}
      {older.name === "full" && <Hint>Older messages are kept on the server. This page shows no more at once.</Hint>}
      {older.name === "none" && <Hint>{room.lastSeq === 0 ? "Nothing said yet. Be the first." : `The beginning of ${room.name}`}</Hint>}
    </Box>
  );
}

const Hint = styled("span")(({ theme }) => ({ fontSize: "0.8125rem", color: theme.vars.palette.text.secondary }));

const Scroller = styled("div")({
  position: "absolute",
  inset: 0,
  overflowY: "auto",
  // The hook keeps the reader's place itself; two of them would move it twice.
  overflowAnchor: "none",
  overscrollBehavior: "contain",
  "&:focus-visible": { outline: "2px solid var(--mui-palette-primary-main)", outlineOffset: -2 },
});

const Rows = styled("ol")(({ theme }) => ({
  position: "relative",
  listStyle: "none",
  margin: 0,
  minHeight: "100%",
  display: "flex",
  flexDirection: "column",
  padding: theme.spacing(1, 1.5),
  [theme.breakpoints.up("md")]: { padding: theme.spacing(1, 3) },
}));
