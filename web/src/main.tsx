import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserClient } from "./shell/browserClient";
import { App } from "./ui/App";
import { ClientContext } from "./ui/clientContext";

const client = new BrowserClient();
client.start();

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <ClientContext value={client}>
      <App />
    </ClientContext>
  </StrictMode>,
);
