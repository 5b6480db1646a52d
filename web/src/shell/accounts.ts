/** Register, log in, log out: the HTTP side of the gateway. The session is an HttpOnly cookie that no script sees. */

export interface Credentials {
  readonly email: string;
  readonly password: string;
}

export type AccountErrorId = "USERNAME_EXISTS" | "EMAIL_EXISTS" | "LOGIN_FAILED" | "OTHER";

export type AccountResult =
  | { readonly ok: true }
  | { readonly ok: false; readonly id: AccountErrorId; readonly message: string };

export function register(username: string, credentials: Credentials): Promise<AccountResult> {
  return post("/api/register", { username, ...credentials });
}

export function logIn(credentials: Credentials): Promise<AccountResult> {
  return post("/api/login", credentials);
}

export function logOut(): Promise<AccountResult> {
  return post("/api/logout", {});
}

async function post(path: string, body: object): Promise<AccountResult> {
  try {
    const headers = { "content-type": "application/json" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), credentials: "same-origin" });
    return response.ok ? { ok: true } : await readError(response);
  } catch {
    return { ok: false, id: "OTHER", message: "The server cannot be reached. Please try again in a moment." };
  }
}

async function readError(response: Response): Promise<AccountResult> {
  const body = (await response.json().catch(() => ({}))) as { id?: unknown; message?: unknown } | null;
  const id = body?.id;
  if (id === "USERNAME_EXISTS" || id === "EMAIL_EXISTS" || id === "LOGIN_FAILED") {
    return { ok: false, id, message: typeof body?.message === "string" ? body.message : "" };
  }
  return { ok: false, id: "OTHER", message: describe(response, body?.message) };
}

function describe(response: Response, message: unknown): string {
  const wait = Number(response.headers.get("retry-after"));
  const when = Number.isFinite(wait) && wait > 0 ? `in ${wait} seconds` : "in a moment";
  if (response.status === 429) return `Too many attempts. Please try again ${when}.`;
  if (response.status >= 500) return `The server cannot do this now. Please try again ${when}.`;
  return typeof message === "string" && message !== "" ? message : `The server refused (${response.status}).`;
}
