/** Before the first `hello`: the page knows nothing yet and says what it waits for. */
import Box from "@mui/material/Box";
import CircularProgress from "@mui/material/CircularProgress";
import type { ConnectionView } from "../protocol/view";
import { Brand } from "./Brand";
import { ConnectionBanner } from "./ConnectionBanner";

export function Splash({ connection }: { connection: ConnectionView }) {
  return (
    <Box component="main" sx={{ height: "100%", display: "grid", placeContent: "center", justifyItems: "center", gap: 3, p: 3 }}>
      <Brand />
      {connection.name === "idle" || connection.name === "connecting" ? (
        <CircularProgress size={28} aria-label="Connecting" />
      ) : (
        <ConnectionBanner connection={connection} />
      )}
    </Box>
  );
}
