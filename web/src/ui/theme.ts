/** Colours and shapes: quiet, with one accent; light or dark as the system prefers. System fonts only. */
import { createTheme } from "@mui/material/styles";
import type {} from "@mui/material/themeCssVarsAugmentation";

const ACCENT = { light: "#2f6f73", dark: "#7cc4c4" };

export const theme = createTheme({
  cssVariables: { colorSchemeSelector: "media" },
  colorSchemes: {
    light: {
      palette: {
        primary: { main: ACCENT.light, contrastText: "#ffffff" },
        background: { default: "#f6f7f9", paper: "#ffffff" },
        text: { primary: "#1c2329", secondary: "#5a6670" },
        divider: "#e3e7ea",
        error: { main: "#b3372f" },
        warning: { main: "#8a5a00" },
        success: { main: "#2e7d4f" },
      },
    },
    dark: {
      palette: {
        primary: { main: ACCENT.dark, contrastText: "#0d2426" },
        background: { default: "#12161c", paper: "#191f27" },
        text: { primary: "#e5eaee", secondary: "#98a5b0" },
        divider: "#29313b",
        error: { main: "#f0857c" },
        warning: { main: "#e2b55f" },
        success: { main: "#6fc795" },
      },
    },
  },
  shape: { borderRadius: 10 },
  typography: {
    fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif',
    button: { textTransform: "none", fontWeight: 600 },
    h1: { fontSize: "1.5rem", fontWeight: 650, letterSpacing: "-0.01em" },
    h2: { fontSize: "1.0625rem", fontWeight: 650 },
  },
  components: {
    MuiCssBaseline: {
      styleOverrides: {
        "html, body, #root": { height: "100%" },
        body: { overscrollBehavior: "none" },
        "@media (prefers-reduced-motion: reduce)": {
          "*, *::before, *::after": { animationDuration: "0.01ms !important", transitionDuration: "0.01ms !important" },
        },
      },
    },
    MuiButton: { defaultProps: { disableElevation: true } },
    MuiPaper: { styleOverrides: { root: { backgroundImage: "none" } } },
  },
});

/** A hue for a person that is the same everywhere: FNV-1a of the id. */
export function hueOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193);
  return (hash >>> 0) % 360;
}
