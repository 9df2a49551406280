import { defineConfig } from "vite";

// The bundle is a part of the Python package: the server reads it from there and the wheel ships it.
export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../src/cllm/studio/static",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy admits no data: addresses
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
});
