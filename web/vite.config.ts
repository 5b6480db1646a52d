import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const gateway = process.env["CORECAST_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  server: {
    port: 3000,
    strictPort: true,
    proxy: {
      "/api": {
        target: gateway,
        changeOrigin: true,
        ws: true,
        // The gateway refuses an Origin that is not its Host, and the page's own origin is port 3000.
        configure: (proxy) => {
          proxy.on("proxyReq", (request) => request.setHeader("origin", gateway));
          proxy.on("proxyReqWs", (request) => request.setHeader("origin", gateway));
        },
      },
    },
  },
  build: {
    target: "es2022",
    sourcemap: false,
    modulePreload: { polyfill: false },
    // Nothing is inlined as data: URLs, so a strict content security policy of the host needs no exception.
    assetsInlineLimit: 0,
    // Libraries change seldom: in chunks of their own they stay in the browser's cache over a release.
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: "react", test: /node_modules\/(react|react-dom|scheduler)\// },
            { name: "mui", test: /node_modules\// },
          ],
        },
      },
    },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
