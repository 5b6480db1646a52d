/** Which screen is shown follows from the connection alone: the client knows whether a session exists, nobody else. */
import CssBaseline from "@mui/material/CssBaseline";
import { ThemeProvider } from "@mui/material/styles";
import { AuthPage } from "./AuthPage";
import { ChatPage } from "./ChatPage";
import { useClientView } from "./clientContext";
import { Splash } from "./Splash";
import { theme } from "./theme";

export function App() {
  return (
    <ThemeProvider theme={theme}>
      <CssBaseline enableColorScheme />
      <Screen />
    </ThemeProvider>
  );
}

function Screen() {
  const view = useClientView();
  if (view.connection.name === "signed-out") return <AuthPage message={view.connection.message} />;
  if (!view.me) return <Splash connection={view.connection} />;
  return <ChatPage view={view} me={view.me} />;
}
