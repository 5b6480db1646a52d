/** A dot and a word, always visible: is what I see current? */
import Box from "@mui/material/Box";
import type { ConnectionView } from "../protocol/view";

const LOOKS: Readonly<Record<ConnectionView["name"], { readonly label: string; readonly colour: string }>> = {
  idle: { label: "Connecting", colour: "text.secondary" },
  connecting: { label: "Connecting", colour: "warning.main" },
  open: { label: "Online", colour: "success.main" },
  lagging: { label: "Catching up", colour: "warning.main" },
  reconnecting: { label: "Offline", colour: "warning.main" },
  "signed-out": { label: "Signed out", colour: "text.secondary" },
  failed: { label: "Disconnected", colour: "error.main" },
};

export function ConnectionBadge({ connection }: { connection: ConnectionView }) {
  const { label, colour } = LOOKS[connection.name];
  return (
    <Box
      role="status"
      data-testid="connection-state"
      data-state={connection.name}
      sx={{ display: "inline-flex", alignItems: "center", gap: 0.75, fontSize: "0.8125rem", color: "text.secondary", whiteSpace: "nowrap" }}
    >
      <Box component="span" aria-hidden sx={{ width: 8, height: 8, borderRadius: "50%", bgcolor: colour, transition: "background-color .2s" }} />
      {label}
    </Box>
  );
}
