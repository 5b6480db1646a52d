/** One room in the list: name, latest message, time, how many are unread. */
import Box from "@mui/material/Box";
import ListItem from "@mui/material/ListItem";
import ListItemButton from "@mui/material/ListItemButton";
import Typography from "@mui/material/Typography";
import { memo } from "react";
import type { RoomView } from "../protocol/view";
import { formatShort } from "./format";
import { HashIcon } from "./icons";

const UNREAD_SHOWN_MAX = 99;

interface Latest {
  readonly author: string;
  readonly content: string;
  readonly timestamp: number;
}

export function latestOf(room: RoomView, myId = ""): Latest | undefined {
  const pending = room.pending.findLast((one) => one.state !== "failed");
  if (pending) return { author: "You", content: pending.content, timestamp: pending.timestamp };
  const message = room.messages.at(-1);
  if (!message) return undefined;
  const author = message.user.id === myId ? "You" : message.user.username;
  return { author, content: message.content, timestamp: message.timestamp };
}

interface RoomItemProps {
  readonly room: RoomView;
  readonly myId: string;
  readonly isOpen: boolean;
  readonly onEnter: (roomId: string) => void;
}

export const RoomItem = memo(function RoomItem({ room, myId, isOpen, onEnter }: RoomItemProps) {
  const latest = latestOf(room, myId);
  const isNew = room.unread > 0;
  return (
    <ListItem disablePadding>
      <ListItemButton
        selected={isOpen}
        aria-current={isOpen ? "page" : undefined}
        onClick={() => onEnter(room.id)}
        data-testid="room-item"
        data-room-name={room.name}
        sx={{ borderRadius: 2, gap: 1.25, px: 1.25, py: 1, alignItems: "center" }}
      >
        <HashIcon sx={{ fontSize: 20, color: isOpen ? "primary.main" : "text.secondary" }} />
        <Box sx={{ flex: 1, minWidth: 0 }}>
          <Box sx={{ display: "flex", alignItems: "baseline", gap: 1 }}>
            <Typography noWrap sx={{ flex: 1, fontWeight: isNew ? 700 : 500, fontSize: "0.9375rem" }}>
              {room.name}
            </Typography>
            {latest && (
              <Typography component="time" variant="caption" color="textSecondary">
                {formatShort(latest.timestamp, Date.now())}
              </Typography>
            )}
          </Box>
          <Box sx={{ display: "flex", alignItems: "center", gap: 1, minHeight: 20 }}>
            <Typography noWrap variant="body2" color={isNew ? "textPrimary" : "textSecondary"} sx={{ flex: 1 }} data-testid="room-latest">
              {latest ? `${latest.author}: ${latest.content}` : room.joined ? "Nothing said yet" : "Open to join"}
            </Typography>
            {isNew && <Unread count={room.unread} />}
          </Box>
        </Box>
      </ListItemButton>
    </ListItem>
  );
});

function Unread({ count }: { count: number }) {
  return (
    <Box
      component="span"
      data-testid="unread"
      aria-label={`${count} unread`}
      sx={{
        minWidth: 20,
        px: 0.75,
        borderRadius: 5,
        bgcolor: "primary.main",
        color: "primary.contrastText",
        fontSize: "0.75rem",
        fontWeight: 700,
        lineHeight: "20px",
        textAlign: "center",
      }}
    >
      {count > UNREAD_SHOWN_MAX ? `${UNREAD_SHOWN_MAX}+` : count}
    </Box>
  );
}
