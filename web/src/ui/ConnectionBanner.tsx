/** The state of the connection where it needs attention: waiting with a countdown, or given up. */
import Alert from "@mui/material/Alert";
import Button from "@mui/material/Button";
import type { ConnectionView } from "../protocol/view";
import { useClient } from "./clientContext";
import { useSeconds } from "./useSeconds";

export function ConnectionBanner({ connection }: { connection: ConnectionView }) {
  const client = useClient();
  const seconds = useSeconds(connection.name === "reconnecting" ? connection.retryAt : undefined);
  if (connection.name !== "reconnecting" && connection.name !== "failed") return null;
  const isWaiting = connection.name === "reconnecting";
  return (
    <Alert
      severity={isWaiting ? "warning" : "error"}
      // The badge announces the state once; a live countdown would be read out every second.
      role="presentation"
      data-testid="connection-banner"
      sx={{ borderRadius: 0, alignItems: "center", py: 0.25 }}
      action={
        <Button
          color="inherit"
          size="small"
          data-testid="reconnect-now"
          sx={{ whiteSpace: "nowrap" }}
          onClick={() => client.run((core, now) => core.connect(now))}
        >
          {isWaiting ? "Try now" : "Try again"}
        </Button>
      }
    >
      {connection.message} {isWaiting && `Reconnecting ${seconds > 0 ? `in ${seconds} s` : "now"} …`}
    </Alert>
  );
}
