/**
 * Routing by the fragment: `#/rooms/<id>`, `#/register`. The server needs to know one page only, a reload stays in
 * its room, and the phone's back button leads from the room to the list.
 */
import { useSyncExternalStore } from "react";

export type Route =
  | { readonly name: "home" }
  | { readonly name: "register" }
  | { readonly name: "room"; readonly roomId: string };

export function useRoute(): Route {
  return parseRoute(useSyncExternalStore(subscribe, () => location.hash));
}

export function goTo(route: Route, how: "push" | "replace" = "push"): void {
  const hash = formatRoute(route);
  if (hash === location.hash) return;
  if (how === "push") location.hash = hash;
  else location.replace(hash);
}

export function parseRoute(hash: string): Route {
  if (hash === "#/register") return { name: "register" };
  const [, id] = /^#\/rooms\/(.+)$/.exec(hash) ?? [];
  try {
    return id ? { name: "room", roomId: decodeURIComponent(id) } : { name: "home" };
  } catch {
    return { name: "home" };
  }
}

export function formatRoute(route: Route): string {
  switch (route.name) {
    case "home":
      return "#/";
    case "register":
      return "#/register";
    case "room":
      return `#/rooms/${encodeURIComponent(route.roomId)}`;
  }
}

function subscribe(listener: () => void): () => void {
  window.addEventListener("hashchange", listener);
  return () => window.removeEventListener("hashchange", listener);
}
