import { styled } from "@mui/material/styles";
import type { User } from "../protocol/frames";
import { hueOf } from "./theme";

const Disc = styled("span")(({ theme }) => ({
  flex: "none",
  width: 34,
  height: 34,
  borderRadius: "50%",
  display: "grid",
  placeItems: "center",
  fontSize: "0.875rem",
  fontWeight: 650,
  userSelect: "none",
  backgroundColor: "hsl(var(--hue) 42% 88%)",
  color: "hsl(var(--hue) 45% 28%)",
  ...theme.applyStyles("dark", { backgroundColor: "hsl(var(--hue) 24% 27%)", color: "hsl(var(--hue) 52% 82%)" }),
}));

/** The first letter on a colour of the person's own. The name always stands beside it. */
export function Avatar({ user }: { user: User }) {
  const [initial = "?"] = user.username.trim();
  return (
    <Disc aria-hidden style={{ "--hue": hueOf(user.id) } as React.CSSProperties}>
      {initial.toUpperCase()}
    </Disc>
  );
}
