/** The rooms with what is new in them, and the person who is logged in. */
import Box from "@mui/material/Box";
import Button from "@mui/material/Button";
import IconButton from "@mui/material/IconButton";
import InputBase from "@mui/material/InputBase";
import List from "@mui/material/List";
import ListSubheader from "@mui/material/ListSubheader";
import Tooltip from "@mui/material/Tooltip";
import Typography from "@mui/material/Typography";
import { useState } from "react";
import type { User } from "../protocol/frames";
import type { ConnectionView, RoomView } from "../protocol/view";
import { logOut } from "../shell/accounts";
import { Avatar } from "./Avatar";
import { Brand } from "./Brand";
import { useClient } from "./clientContext";
import { ConnectionBadge } from "./ConnectionBadge";
import { goTo } from "./hashRoute";
import { LogOutIcon, PlusIcon } from "./icons";
import { latestOf, RoomItem } from "./RoomItem";

/** From so many rooms on, looking takes longer than typing. */
const SEARCH_FROM_ROOMS = 8;

interface SidebarProps {
  readonly rooms: readonly RoomView[];
  readonly me: User;
  readonly connection: ConnectionView;
  readonly openRoomId: string | undefined;
  readonly showsConnection: boolean;
  readonly onEnter: (roomId: string) => void;
  readonly onCreate: () => void;
}

export function Sidebar({ rooms, me, connection, openRoomId, showsConnection, onEnter, onCreate }: SidebarProps) {
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const found = rooms.filter((room) => room.name.toLowerCase().includes(wanted));
  const joined = found.filter((room) => room.joined).sort(byActivity);
  const others = found.filter((room) => !room.joined).sort(byName);
  const item = (room: RoomView) => (
    <RoomItem key={room.id} room={room} myId={me.id} isOpen={room.id === openRoomId} onEnter={onEnter} />
  );
  return (
    <Box
      component="nav"
      aria-label="Rooms"
      sx={{ minHeight: 0, display: "flex", flexDirection: "column", bgcolor: "background.paper", borderRightStyle: "solid", borderRightWidth: { xs: 0, md: 1 }, borderColor: "divider" }}
    >
      <Box sx={{ display: "flex", alignItems: "center", gap: 1, minHeight: 60, pl: 2, pr: 1.25 }}>
        <Brand size={30} />
        <Box sx={{ flex: 1 }} />
        {showsConnection && <ConnectionBadge connection={connection} />}
        <Button size="small" startIcon={<PlusIcon />} onClick={onCreate} data-testid="create-room">
          New room
        </Button>
      </Box>
      {rooms.length >= SEARCH_FROM_ROOMS && (
        <InputBase
          value={search}
          onChange={(event) => setSearch(event.target.value)}
          placeholder="Find a room"
          inputProps={{ "aria-label": "Find a room", type: "search" }}
          sx={{ mx: 1.5, mb: 1, px: 1.5, py: 0.25, borderRadius: 2, bgcolor: "action.hover" }}
        />
      )}
      <Box sx={{ flex: 1, minHeight: 0, overflowY: "auto" }}>
        <List disablePadding data-testid="room-list" sx={{ px: 1 }}>
          {joined.map(item)}
          {others.length > 0 && (
            <ListSubheader disableSticky sx={{ lineHeight: 2.5, mt: 1, bgcolor: "transparent" }}>
              More rooms
            </ListSubheader>
          )}
          {others.map(item)}
        </List>
        {found.length === 0 && (
          <Typography variant="body2" color="textSecondary" sx={{ p: 2 }}>
            {wanted ? "No room of that name." : "No rooms yet."}
          </Typography>
        )}
      </Box>
      <Person me={me} />
    </Box>
  );
}

function Person({ me }: { me: User }) {
  const client = useClient();
  const [isBusy, setBusy] = useState(false);
  const leave = () => {
    setBusy(true);
    client.run((core) => core.leave(true));
    void logOut().then((result) => {
      setBusy(false);
      if (result.ok) {
        goTo({ name: "home" }, "replace");
        client.run((core) => core.signOut());
      } else {
        client.run((core) => core.leave(false));
        client.run((core) => core.notify(`You are still logged in. ${result.message}`));
      }
    });
  };
  return (
    <Box sx={{ display: "flex", alignItems: "center", gap: 1.25, px: 2, py: 1.25, borderTop: 1, borderColor: "divider" }}>
      <Avatar user={me} />
      <Typography noWrap sx={{ flex: 1, fontWeight: 600 }} data-testid="me">
        {me.username}
      </Typography>
      <Tooltip title="Log out">
        <IconButton aria-label="Log out" data-testid="log-out" disabled={isBusy} onClick={leave}>
          <LogOutIcon />
        </IconButton>
      </Tooltip>
    </Box>
  );
}

function byActivity(a: RoomView, b: RoomView): number {
  return (latestOf(b)?.timestamp ?? 0) - (latestOf(a)?.timestamp ?? 0) || byName(a, b);
}

function byName(a: RoomView, b: RoomView): number {
  return a.name.localeCompare(b.name);
}
