/** A text field that says what is wrong with it, to the eye and to a screen reader. */
import IconButton from "@mui/material/IconButton";
import InputAdornment from "@mui/material/InputAdornment";
import TextField from "@mui/material/TextField";
import { type ReactNode, useId, useState } from "react";
import { EyeIcon } from "./icons";

interface FormFieldProps {
  readonly label: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly problem: string | undefined;
  readonly help?: string;
  readonly type?: "text" | "email" | "password";
  readonly autoComplete?: string;
  readonly autoFocus?: boolean;
  readonly adornment?: ReactNode;
}

export function FormField({ label, value, onChange, problem, help, type = "text", autoComplete, autoFocus, adornment }: FormFieldProps) {
  const id = useId();
  return (
    <TextField
      id={id}
      fullWidth
      label={label}
      type={type}
      value={value}
      autoFocus={autoFocus ?? false}
      autoComplete={autoComplete ?? "off"}
      error={problem !== undefined}
      helperText={problem ?? help}
      onChange={(event) => onChange(event.target.value)}
      slotProps={{ input: { endAdornment: adornment }, htmlInput: { autoCapitalize: "none", spellCheck: false } }}
    />
  );
}

type PasswordFieldProps = Pick<FormFieldProps, "value" | "onChange" | "problem" | "help" | "autoComplete">;

export function PasswordField(props: PasswordFieldProps) {
  const [isShown, setShown] = useState(false);
  return (
    <FormField
      {...props}
      label="Password"
      type={isShown ? "text" : "password"}
      adornment={
        <InputAdornment position="end">
          <IconButton edge="end" aria-label={isShown ? "Hide password" : "Show password"} aria-pressed={isShown} onClick={() => setShown(!isShown)}>
            <EyeIcon sx={{ opacity: isShown ? 1 : 0.55 }} />
          </IconButton>
        </InputAdornment>
      }
    />
  );
}
