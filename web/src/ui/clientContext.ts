/** How components reach the client: one context, one subscription per reader. */
import { createContext, use, useSyncExternalStore } from "react";
import type { ClientView } from "../protocol/view";
import type { BrowserClient } from "../shell/browserClient";

export const ClientContext = createContext<BrowserClient | null>(null);

export function useClient(): BrowserClient {
  const client = use(ClientContext);
  if (!client) throw new Error("no client above this component");
  return client;
}

export function useClientView(): ClientView {
  const client = useClient();
  return useSyncExternalStore(client.subscribe, client.snapshot);
}
