/** Rooms on the left, the open room on the right; on a phone one of the two. */
import Alert from "@mui/material/Alert";
import Box from "@mui/material/Box";
import Snackbar from "@mui/material/Snackbar";
import type { Theme } from "@mui/material/styles";
import Typography from "@mui/material/Typography";
import useMediaQuery from "@mui/material/useMediaQuery";
import { useCallback, useEffect, useState } from "react";
import type { User } from "../protocol/frames";
import type { ClientView, RoomView } from "../protocol/view";
import { useClient } from "./clientContext";
import { ConnectionBanner } from "./ConnectionBanner";
import { CreateRoomDialog } from "./CreateRoomDialog";
import { goTo, useRoute } from "./hashRoute";
import { RoomPane } from "./RoomPane";
import { Sidebar } from "./Sidebar";
import { asSentence } from "./validation";

export function ChatPage({ view, me }: { view: ClientView; me: User }) {
  const client = useClient();
  const isPhone = useMediaQuery((theme: Theme) => theme.breakpoints.down("md"));
  const room = useOpenRoom(view.rooms, isPhone);
  const [isCreating, setCreating] = useState(false);
  const enter = useCallback((roomId: string) => goTo({ name: "room", roomId }), []);
  const startCreating = useCallback(() => setCreating(true), []);
  const stopCreating = useCallback(() => setCreating(false), []);
  useTitle(view.rooms);

  const showsList = !isPhone || !room;
  const showsRoom = !isPhone || room !== undefined;
  return (
    <Box sx={{ height: "100dvh", display: "flex", flexDirection: "column" }}>
      <ConnectionBanner connection={view.connection} />
      <Box sx={{ flex: 1, minHeight: 0, display: "grid", gridTemplateColumns: { xs: "minmax(0, 1fr)", md: "300px minmax(0, 1fr)" } }}>
        {showsList && (
          <Sidebar
            rooms={view.rooms}
            me={me}
            connection={view.connection}
            openRoomId={room?.id}
            showsConnection={isPhone}
            onEnter={enter}
            onCreate={startCreating}
          />
        )}
        {showsRoom && (room ? <RoomPane key={room.id} room={room} me={me} connection={view.connection} isPhone={isPhone} /> : <NoRoom />)}
      </Box>
      <CreateRoomDialog open={isCreating} creation={view.creation} onClose={stopCreating} onCreated={enter} />
      <Snackbar open={view.notice !== undefined} autoHideDuration={8000} onClose={() => client.run((core) => core.notify(undefined))}>
        <Alert severity="warning" variant="filled" data-testid="notice" onClose={() => client.run((core) => core.notify(undefined))}>
          {asSentence(view.notice ?? "")}
        </Alert>
      </Snackbar>
    </Box>
  );
}

/** The room named by the address; a wide screen is never without one. Tells the client which it is. */
function useOpenRoom(rooms: readonly RoomView[], isPhone: boolean): RoomView | undefined {
  const client = useClient();
  const route = useRoute();
  const named = route.name === "room" ? rooms.find((room) => room.id === route.roomId) : undefined;
  const room = named ?? (isPhone ? undefined : rooms.find((candidate) => candidate.joined));
  const roomId = room?.id;
  useEffect(() => {
    client.run((core) => core.openRoom(roomId));
  }, [client, roomId]);
  return room;
}

function useTitle(rooms: readonly RoomView[]): void {
  const unread = rooms.reduce((sum, room) => sum + room.unread, 0);
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) corecast` : "corecast";
    return () => {
      document.title = "corecast";
    };
  }, [unread]);
}

function NoRoom() {
  return (
    <Box component="main" sx={{ display: "grid", placeContent: "center", p: 3 }}>
      <Typography color="textSecondary">There is no room yet. Create the first one.</Typography>
    </Box>
  );
}
