/** Rows of the message list. Plain styled elements: thousands of them must be cheap. */
import Button from "@mui/material/Button";
import { styled } from "@mui/material/styles";
import { memo } from "react";
import type { Message, User } from "../protocol/frames";
import type { PendingMessage } from "../protocol/outbox";
import { Avatar } from "./Avatar";
import { useClient } from "./clientContext";
import { formatDay, formatFull, formatTime } from "./format";
import { AlertIcon, CheckIcon, ClockIcon } from "./icons";
import { asSentence } from "./validation";

interface MessageRowProps {
  readonly message: Message;
  readonly isOwn: boolean;
  readonly startsGroup: boolean;
}

export const MessageRow = memo(function MessageRow({ message, isOwn, startsGroup }: MessageRowProps) {
  const { user, content, timestamp, seq } = message;
  return (
    <Line data-own={isOwn || undefined} data-starts={startsGroup || undefined} data-testid="message" data-seq={seq}>
      <Side user={user} isOwn={isOwn} startsGroup={startsGroup} />
      <Body>
        {startsGroup && <Author>{isOwn ? "You" : user.username}</Author>}
        <Bubble>
          <Text data-testid="content">{content}</Text>
          <Meta dateTime={new Date(timestamp).toISOString()} title={formatFull(timestamp)}>
            {formatTime(timestamp)}
          </Meta>
        </Bubble>
      </Body>
    </Line>
  );
});

interface PendingRowProps {
  readonly roomId: string;
  readonly pending: PendingMessage;
  readonly startsGroup: boolean;
}

export const PendingRow = memo(function PendingRow({ roomId, pending, startsGroup }: PendingRowProps) {
  const client = useClient();
  const { clientMessageId, content, timestamp, state, error } = pending;
  return (
    <Line data-own data-starts={startsGroup || undefined} data-testid="pending" data-state={state}>
      <Body>
        {startsGroup && <Author>You</Author>}
        <Bubble data-state={state}>
          <Text data-testid="content">{content}</Text>
          <Meta dateTime={new Date(timestamp).toISOString()} title={formatFull(timestamp)}>
            {formatTime(timestamp)}
            <StateIcon state={state} />
          </Meta>
        </Bubble>
        {error !== undefined && (
          <Problem role="alert" data-final={state === "failed" || undefined}>
            {asSentence(error)} {state === "sending" && "It will be sent again."}
            {state === "failed" && (
              <>
                <Button size="small" onClick={() => client.run((core) => core.retry(roomId, clientMessageId))}>
                  Send again
                </Button>
                <Button size="small" color="inherit" onClick={() => client.run((core) => core.discard(roomId, clientMessageId))}>
                  Discard
                </Button>
              </>
            )}
          </Problem>
        )}
      </Body>
    </Line>
  );
});

function StateIcon({ state }: { state: PendingMessage["state"] }) {
  const sx = { fontSize: 14, ml: 0.5, verticalAlign: "-2px" };
  switch (state) {
    case "sending":
      return <ClockIcon sx={sx} titleAccess="Sending" />;
    case "sent":
      return <CheckIcon sx={sx} titleAccess="Sent" />;
    case "failed":
      return <AlertIcon sx={sx} titleAccess="Not sent" />;
  }
}

export const DayRow = memo(function DayRow({ timestamp }: { timestamp: number }) {
  return (
    <Divider>
      <span>{formatDay(timestamp, Date.now())}</span>
    </Divider>
  );
});

export const UnreadRow = memo(function UnreadRow() {
  return (
    <Divider data-unread data-testid="unread-mark">
      <span>New</span>
    </Divider>
  );
});

/** The avatar stands once per group; the others keep its place free. */
function Side({ user, isOwn, startsGroup }: { user: User; isOwn: boolean; startsGroup: boolean }) {
  if (isOwn) return null;
  return startsGroup ? <Avatar user={user} /> : <Gap />;
}

const Gap = styled("span")({ flex: "none", width: 34 });

const Line = styled("li")({
  display: "flex",
  gap: 10,
  marginTop: 3,
  "&[data-starts]": { marginTop: 14 },
  "&[data-own]": { justifyContent: "flex-end" },
});

const Body = styled("div")({
  minWidth: 0,
  maxWidth: "min(80%, 640px)",
  display: "flex",
  flexDirection: "column",
  alignItems: "flex-start",
  "[data-own] > &": { alignItems: "flex-end" },
});

const Author = styled("span")(({ theme }) => ({
  fontSize: "0.8125rem",
  fontWeight: 650,
  color: theme.vars.palette.text.secondary,
  margin: "0 4px 3px",
  "[data-own] &": { position: "absolute", clipPath: "inset(50%)", width: 1, height: 1, overflow: "hidden" },
}));

const Bubble = styled("div")(({ theme }) => ({
  maxWidth: "100%",
  padding: "7px 12px",
  borderRadius: 14,
  lineHeight: 1.45,
  backgroundColor: theme.vars.palette.background.paper,
  border: `1px solid ${theme.vars.palette.divider}`,
  "[data-own] &": {
    backgroundColor: "#dcebea",
    borderColor: "transparent",
    ...theme.applyStyles("dark", { backgroundColor: "#1f3f44" }),
  },
  "&[data-state='sending']": { opacity: 0.72 },
  "&[data-state='failed']": { borderColor: theme.vars.palette.error.main },
}));

const Text = styled("span")({ whiteSpace: "pre-wrap", overflowWrap: "anywhere" });

const Meta = styled("time")(({ theme }) => ({
  float: "right",
  margin: "5px 0 -3px 12px",
  fontSize: "0.6875rem",
  fontVariantNumeric: "tabular-nums",
  color: theme.vars.palette.text.secondary,
}));

const Problem = styled("div")(({ theme }) => ({
  fontSize: "0.8125rem",
  padding: "3px 4px",
  color: theme.vars.palette.text.secondary,
  "&[data-final]": { color: theme.vars.palette.error.main },
}));

const Divider = styled("li")(({ theme }) => ({
  display: "flex",
  alignItems: "center",
  gap: 12,
  margin: "18px 0 4px",
  fontSize: "0.75rem",
  fontWeight: 600,
  color: theme.vars.palette.text.secondary,
  "&::before, &::after": { content: '""', flex: 1, height: 1, backgroundColor: "currentColor", opacity: 0.25 },
  "&[data-unread]": { color: theme.vars.palette.primary.main, "&::before, &::after": { opacity: 0.6 } },
}));
