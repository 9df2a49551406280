import { defineConfig, type Plugin } from "vite";

// The bundle is a part of the Python package: the server reads it from there and the wheel ships it.
export default defineConfig({
  plugins: [lexerOnly()],
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

/** Of `marked` the pages use the lexer (src/screens/bench/markdown.tsx); its one default instance, at the end of the file,
 * would keep the parser and the HTML renderer in the bundle: 4 kB of 150. */
function lexerOnly(): Plugin {
  return {
    name: "marked-lexer-only",
    transform(code, id) {
      if (!id.endsWith("/marked/lib/marked.esm.js")) return null;
      const end = /\bvar \w+=new \w+;function \w+\(\w+,\w+\)\{return \w+\.parse\(/.exec(code)?.index;
      const name = /\b(\w+) as Lexer\b/.exec(code)?.[1];
      if (end === undefined || name === undefined) throw new Error(`${id}: another build than this expects`);
      return { code: `${code.slice(0, end)}export{${name} as Lexer};`, map: null };
    },
  };
}
