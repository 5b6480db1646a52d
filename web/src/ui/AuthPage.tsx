/** Log in or register; the cookie that results is invisible here, so success simply connects. */
import Alert from "@mui/material/Alert";
import Box from "@mui/material/Box";
import Button from "@mui/material/Button";
import Link from "@mui/material/Link";
import Paper from "@mui/material/Paper";
import Typography from "@mui/material/Typography";
import { type FormEvent, type ReactNode, useState } from "react";
import { type AccountResult, logIn, register } from "../shell/accounts";
import { Brand } from "./Brand";
import { useClient } from "./clientContext";
import { FormField, PasswordField } from "./FormField";
import { formatRoute, goTo, useRoute } from "./hashRoute";
import { asSentence, emailProblem, newPasswordProblem, passwordProblem, usernameProblem } from "./validation";

export function AuthPage({ message }: { message: string | undefined }) {
  const isRegistering = useRoute().name === "register";
  return (
    <Box component="main" sx={{ minHeight: "100%", display: "grid", alignContent: "center", justifyItems: "center", gap: 3, p: 2 }}>
      <Brand size={44} />
      <Paper variant="outlined" sx={{ width: "100%", maxWidth: 400, p: { xs: 2.5, sm: 4 }, borderRadius: 2.5 }}>
        {message && !isRegistering && (
          <Alert severity="info" sx={{ mb: 2.5 }} data-testid="signed-out-message">
            {message}
          </Alert>
        )}
        {isRegistering ? <RegisterForm key="register" /> : <LoginForm key="login" />}
      </Paper>
    </Box>
  );
}

/** What the fields of a form complain about; shown after the first attempt, then as one types. */
type Problems<Field extends string> = Partial<Record<Field, string | undefined>>;

function LoginForm() {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const problems = { email: emailProblem(email), password: passwordProblem(password) };
  const form = useAccountForm(problems, () => logIn({ email: email.trim(), password }));
  const failed = form.refused?.id === "LOGIN_FAILED" ? "Email and password do not match." : undefined;
  return (
    <FormFrame title="Welcome back" form={form} failed={failed} submitLabel="Log in" testId="login-form">
      <FormField label="Email" type="email" autoComplete="username" value={email} onChange={setEmail} problem={form.shown.email} autoFocus />
      <PasswordField autoComplete="current-password" value={password} onChange={setPassword} problem={form.shown.password} />
      <FormSwitch question="New here?" label="Create an account" route="register" />
    </FormFrame>
  );
}

function RegisterForm() {
  const [username, setUsername] = useState("");
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const problems = { username: usernameProblem(username), email: emailProblem(email), password: newPasswordProblem(password) };
  const form = useAccountForm(problems, () => register(username.trim(), { email: email.trim(), password }));
  const taken = {
    username: form.refused?.id === "USERNAME_EXISTS" ? "This name is taken." : undefined,
    email: form.refused?.id === "EMAIL_EXISTS" ? "There is an account with this address already." : undefined,
  };
  return (
    <FormFrame title="Create an account" form={form} failed={undefined} submitLabel="Create account" testId="register-form">
      <FormField
        label="Name"
        autoComplete="nickname"
        value={username}
        onChange={form.edited(setUsername)}
        problem={form.shown.username ?? taken.username}
        help="This is what others see."
        autoFocus
      />
      <FormField
        label="Email"
        type="email"
        autoComplete="username"
        value={email}
        onChange={form.edited(setEmail)}
        problem={form.shown.email ?? taken.email}
      />
      <PasswordField
        autoComplete="new-password"
        value={password}
        onChange={setPassword}
        problem={form.shown.password}
        help="At least 8 characters."
      />
      <FormSwitch question="Already registered?" label="Log in" route="home" />
    </FormFrame>
  );
}

interface AccountForm<Field extends string> {
  readonly isBusy: boolean;
  readonly refused: Extract<AccountResult, { ok: false }> | undefined;
  readonly shown: Problems<Field>;
  readonly submit: (event: FormEvent) => void;
  /** Wraps a setter: what the server said of the old value does not concern the new one. */
  readonly edited: (set: (value: string) => void) => (value: string) => void;
}

function useAccountForm<Field extends string>(problems: Problems<Field>, request: () => Promise<AccountResult>): AccountForm<Field> {
  const client = useClient();
  const [isBusy, setBusy] = useState(false);
  const [wasTried, setTried] = useState(false);
  const [refused, setRefused] = useState<Extract<AccountResult, { ok: false }>>();

  const submit = (event: FormEvent) => {
    event.preventDefault();
    setTried(true);
    if (isBusy || Object.values(problems).some((problem) => problem !== undefined)) return;
    setBusy(true);
    setRefused(undefined);
    void request().then((result) => {
      setBusy(false);
      if (!result.ok) return setRefused(result);
      goTo({ name: "home" }, "replace");
      client.run((core, now) => core.connect(now));
    });
  };
  const edited = (set: (value: string) => void) => (value: string) => {
    setRefused(undefined);
    set(value);
  };
  return { isBusy, refused, shown: wasTried ? problems : {}, submit, edited };
}

interface FormFrameProps {
  readonly title: string;
  readonly form: AccountForm<string>;
  readonly failed: string | undefined;
  readonly submitLabel: string;
  readonly testId: string;
  readonly children: ReactNode;
}

function FormFrame({ title, form, failed, submitLabel, testId, children }: FormFrameProps) {
  const message = failed ?? (form.refused?.id === "OTHER" ? asSentence(form.refused.message) : undefined);
  return (
    <Box component="form" noValidate onSubmit={form.submit} data-testid={testId} sx={{ display: "flex", flexDirection: "column", gap: 2 }}>
      <Typography variant="h1" sx={{ mb: 0.5 }}>
        {title}
      </Typography>
      {message && (
        <Alert severity="error" data-testid="form-error">
          {message}
        </Alert>
      )}
      {children}
      <Button type="submit" variant="contained" size="large" loading={form.isBusy} sx={{ order: 1 }}>
        {submitLabel}
      </Button>
    </Box>
  );
}

function FormSwitch({ question, label, route }: { question: string; label: string; route: "home" | "register" }) {
  return (
    <Typography variant="body2" color="textSecondary" sx={{ order: 2, textAlign: "center" }}>
      {question} <Link href={formatRoute({ name: route })}>{label}</Link>
    </Typography>
  );
}
