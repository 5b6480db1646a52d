/** Asks for a name; what the server thinks of it is shown where it was typed. */
import Alert from "@mui/material/Alert";
import Button from "@mui/material/Button";
import Dialog from "@mui/material/Dialog";
import DialogActions from "@mui/material/DialogActions";
import DialogContent from "@mui/material/DialogContent";
import DialogTitle from "@mui/material/DialogTitle";
import { type FormEvent, useEffect, useState } from "react";
import type { RoomCreation } from "../protocol/view";
import { useClient } from "./clientContext";
import { FormField } from "./FormField";
import { useSeconds } from "./useSeconds";
import { asSentence, roomNameProblem } from "./validation";

interface CreateRoomDialogProps {
  readonly open: boolean;
  readonly creation: RoomCreation;
  readonly onClose: () => void;
  readonly onCreated: (roomId: string) => void;
}

export function CreateRoomDialog({ open, creation, onClose, onCreated }: CreateRoomDialogProps) {
  const client = useClient();
  useEffect(() => {
    client.run((core) => core.resetCreation());
  }, [client, open]);

  const createdId = creation.name === "created" ? creation.roomId : undefined;
  useEffect(() => {
    if (!open || createdId === undefined) return;
    onClose();
    onCreated(createdId);
  }, [open, createdId, onClose, onCreated]);

  return (
    <Dialog open={open} onClose={onClose} fullWidth maxWidth="xs" aria-labelledby="create-room-title">
      <DialogTitle id="create-room-title">New room</DialogTitle>
      <RoomForm creation={creation} onClose={onClose} />
    </Dialog>
  );
}

function RoomForm({ creation, onClose }: Pick<CreateRoomDialogProps, "creation" | "onClose">) {
  const client = useClient();
  const [name, setName] = useState("");
  const [wasTried, setTried] = useState(false);
  const seconds = useSeconds(creation.name === "failed" ? creation.retryAt : undefined);
  const roomName = name.trim();
  const problem = wasTried ? roomNameProblem(name) : undefined;
  const taken = creation.name === "taken" && creation.roomName === roomName ? `“${roomName}” is taken. Choose another name.` : undefined;

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (!roomNameProblem(name)) client.run((core) => core.createRoom(roomName));
  };
  return (
    <form onSubmit={submit} noValidate data-testid="create-room-form">
      <DialogContent sx={{ pt: 1, display: "grid", gap: 2 }}>
        {creation.name === "failed" && (
          <Alert severity="error">
            {asSentence(creation.message)} {seconds > 0 && `Try again in ${seconds} s.`}
          </Alert>
        )}
        <FormField label="Name of the room" value={name} onChange={setName} problem={problem ?? taken} help="Everybody sees it at once." autoFocus />
      </DialogContent>
      <DialogActions sx={{ px: 3, pb: 2.5 }}>
        <Button onClick={onClose}>Cancel</Button>
        <Button type="submit" variant="contained" loading={creation.name === "asking"} disabled={seconds > 0}>
          Create
        </Button>
      </DialogActions>
    </form>
  );
}
