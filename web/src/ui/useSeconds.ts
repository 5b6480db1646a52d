import { useEffect, useState } from "react";
import { useClient } from "./clientContext";

/** Whole seconds until `at` in the client's time, rounded up; renders again while it counts. */
export function useSeconds(at: number | undefined): number {
  const client = useClient();
  const [, setTurn] = useState(0);
  useEffect(() => {
    if (at === undefined) return;
    const timer = setInterval(() => setTurn((turn) => turn + 1), 250);
    return () => clearInterval(timer);
  }, [at]);
  return at === undefined ? 0 : Math.max(0, Math.ceil((at - client.now()) / 1000));
}
