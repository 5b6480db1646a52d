/** Name and mark; the mark is the one of public/favicon.svg, drawn here so that it is there with the first paint. */
import Box from "@mui/material/Box";

export function Brand({ size = 40 }: { size?: number }) {
  return (
    <Box sx={{ display: "flex", alignItems: "center", gap: 1.25, fontSize: size * 0.5, fontWeight: 700, letterSpacing: "-0.02em" }}>
      <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden>
        <rect width="32" height="32" rx="9" fill="#2f6f73" />
        <g fill="none" stroke="#fff" strokeWidth="2.4" strokeLinecap="round">
          <path d="M11 10.5a7.8 7.8 0 0 0 0 11M21 10.5a7.8 7.8 0 0 1 0 11" />
          <path d="M7.4 7a12.7 12.7 0 0 0 0 18M24.6 7a12.7 12.7 0 0 1 0 18" opacity=".55" />
        </g>
        <circle cx="16" cy="16" r="3" fill="#fff" />
      </svg>
      corecast
    </Box>
  );
}
