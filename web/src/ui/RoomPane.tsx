/** The open room: its name, its messages, the place to write. */
import Box from "@mui/material/Box";
import Button from "@mui/material/Button";
import CircularProgress from "@mui/material/CircularProgress";
import IconButton from "@mui/material/IconButton";
import Typography from "@mui/material/Typography";
import { useRef } from "react";
import type { User } from "../protocol/frames";
import type { ConnectionView, RoomView } from "../protocol/view";
import { useClient } from "./clientContext";
import { Composer } from "./Composer";
import { ConnectionBadge } from "./ConnectionBadge";
import { goTo } from "./hashRoute";
import { BackIcon } from "./icons";
import { MessageList, type MessageListHandle } from "./MessageList";
import { asSentence } from "./validation";

interface RoomPaneProps {
  readonly room: RoomView;
  readonly me: User;
  readonly connection: ConnectionView;
  readonly isPhone: boolean;
}

export function RoomPane({ room, me, connection, isPhone }: RoomPaneProps) {
  const client = useClient();
  const list = useRef<MessageListHandle>(null);
  const send = (content: string): boolean => {
    const isQueued = client.run((core, now) => core.send(room.id, content, now));
    if (isQueued) list.current?.jumpToLatest();
    return isQueued;
  };
  return (
    <Box component="main" aria-label={room.name} sx={{ minWidth: 0, minHeight: 0, display: "flex", flexDirection: "column" }}>
      <RoomHeader room={room} connection={connection} isPhone={isPhone} />
      {room.joined ? <MessageList room={room} me={me} ref={list} /> : <NotJoined room={room} />}
      <Composer roomId={room.id} roomName={room.name} isDisabled={!room.joined} hasAutoFocus={!isPhone} onSend={send} />
    </Box>
  );
}

function RoomHeader({ room, connection, isPhone }: Omit<RoomPaneProps, "me">) {
  const client = useClient();
  const leave = () => {
    client.run((core) => core.leaveRoom(room.id));
    goTo({ name: "home" });
  };
  return (
    <Box
      component="header"
      sx={{ display: "flex", alignItems: "center", gap: 1, minHeight: 60, px: isPhone ? 1 : 3, borderBottom: 1, borderColor: "divider", bgcolor: "background.paper" }}
    >
      {isPhone && (
        <IconButton aria-label="Back to the rooms" data-testid="back" onClick={() => goTo({ name: "home" })}>
          <BackIcon />
        </IconButton>
      )}
      <Typography variant="h2" component="h1" noWrap sx={{ flex: 1 }} data-testid="room-title">
        {room.name}
      </Typography>
      {room.kind === "public" && room.joined && (
        <Button size="small" color="inherit" onClick={leave}>
          Leave
        </Button>
      )}
      <ConnectionBadge connection={connection} />
    </Box>
  );
}

/** A public room between opening it and the server's answer. */
function NotJoined({ room }: { room: RoomView }) {
  const client = useClient();
  return (
    <Box sx={{ flex: 1, display: "grid", placeContent: "center", justifyItems: "center", gap: 2, p: 3 }}>
      {room.joinError === undefined ? (
        <CircularProgress size={28} aria-label="Joining the room" />
      ) : (
        <>
          <Typography color="error">{asSentence(room.joinError)}</Typography>
          <Button onClick={() => client.run((core) => core.openRoom(room.id))}>Try again</Button>
        </>
      )}
    </Box>
  );
}
