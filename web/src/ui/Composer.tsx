/** Where messages are written. Enter sends, Shift+Enter makes a line; the limit shows before it is reached. */
import Box from "@mui/material/Box";
import IconButton from "@mui/material/IconButton";
import InputBase from "@mui/material/InputBase";
import Typography from "@mui/material/Typography";
import { type KeyboardEvent, useId, useState } from "react";
import { CONTENT_BYTES_MAX, OUTBOX_MESSAGES_MAX } from "../protocol/limits";
import { utf8Length } from "../protocol/text";
import { SendIcon } from "./icons";

/** Share of the limit from which the rest is shown. */
const SHOW_REST_FROM = 0.75;

/** What was begun in other rooms stays while the page lives. */
const drafts = new Map<string, string>();

interface ComposerProps {
  readonly roomId: string;
  readonly roomName: string;
  readonly isDisabled: boolean;
  readonly hasAutoFocus: boolean;
  /** `false` when it could not be taken. */
  readonly onSend: (content: string) => boolean;
}

export function Composer({ roomId, roomName, isDisabled, hasAutoFocus, onSend }: ComposerProps) {
  const noteId = useId();
  const [content, setContent] = useState(() => drafts.get(roomId) ?? "");
  const [isFull, setFull] = useState(false);
  const bytes = utf8Length(content);
  const rest = CONTENT_BYTES_MAX - bytes;
  const canSend = !isDisabled && rest >= 0 && content.trim() !== "";

  const change = (next: string) => {
    setContent(next);
    setFull(false);
    if (next === "") drafts.delete(roomId);
    else drafts.set(roomId, next);
  };
  const send = () => {
    if (!canSend) return;
    if (onSend(content)) change("");
    else setFull(true);
  };
  const handleKey = (event: KeyboardEvent) => {
    // An Enter that ends the composition of a character belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };

  return (
    <Box sx={{ px: { xs: 1.5, md: 3 }, pt: 1, pb: "max(4px, env(safe-area-inset-bottom))", bgcolor: "background.default" }}>
      <Box
        sx={{
          display: "flex",
          alignItems: "flex-end",
          gap: 1,
          pl: 2,
          pr: 0.75,
          py: 0.75,
          borderRadius: 2,
          bgcolor: "background.paper",
          border: 1,
          borderColor: rest < 0 ? "error.main" : "divider",
          "&:focus-within": { borderColor: rest < 0 ? "error.main" : "primary.main" },
        }}
      >
        <InputBase
          multiline
          maxRows={8}
          fullWidth
          autoFocus={hasAutoFocus}
          disabled={isDisabled}
          value={content}
          onChange={(event) => change(event.target.value)}
          onKeyDown={handleKey}
          placeholder={`Message ${roomName}`}
          inputProps={{ "aria-label": `Message ${roomName}`, "aria-describedby": noteId, "aria-invalid": rest < 0, "data-testid": "composer" }}
          sx={{ py: 0.75, lineHeight: 1.45 }}
        />
        {/* Keeps the focus in the field: a phone's keyboard would otherwise fold away after each message. */}
        <IconButton color="primary" aria-label="Send" data-testid="send" disabled={!canSend} onMouseDown={(event) => event.preventDefault()} onClick={send}>
          <SendIcon />
        </IconButton>
      </Box>
      <Typography
        id={noteId}
        variant="caption"
        data-testid="composer-note"
        color={rest < 0 || isFull ? "error" : "textSecondary"}
        sx={{ display: "block", minHeight: 20, px: 2, textAlign: "right" }}
      >
        {noteOf(rest, bytes, isFull)}
      </Typography>
    </Box>
  );
}

function noteOf(rest: number, bytes: number, isFull: boolean): string {
  if (isFull) return `${OUTBOX_MESSAGES_MAX} messages wait to be sent already. Please wait for the connection.`;
  if (rest < 0) return `Too long by ${-rest} bytes`;
  return bytes >= CONTENT_BYTES_MAX * SHOW_REST_FROM ? `${rest} bytes left` : "";
}
