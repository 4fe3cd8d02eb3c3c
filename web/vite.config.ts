import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const OUT = "../captioning/serving/page";
const NOT_SOURCES = ["node_modules"];

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((own) => !NOT_SOURCES.includes(own.name))
    .flatMap((own) => (own.isDirectory() ? files(join(folder, own.name)) : [join(folder, own.name)]));
}

/** What the build was made of, as `sha256sum` writes it: tests/test_page.py compares. */
function sources(): Plugin {
  return {
    name: "sources",
    apply: "build",
    closeBundle() {
      const lines = files(".").sort().map((path) => `${createHash("sha256").update(readFileSync(path)).digest("hex")}  ${path}\n`);
      writeFileSync(join(OUT, "sources.sha256"), lines.join(""));
    },
  };
}

/** The page of the HTTP interface: Swagger UI's own files, unchanged. */
function swagger(): Plugin {
  return {
    name: "swagger",
    apply: "build",
    closeBundle() {
      mkdirSync(join(OUT, "docs"), { recursive: true });
      for (const name of ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-bundle.js.LICENSE.txt", "LICENSE", "NOTICE"])
        copyFileSync(join("node_modules/swagger-ui-dist", name), join(OUT, "docs", name));
    },
  };
}

export default defineConfig({
  base: "./", // the service may stand below a prefix
  plugins: [react(), swagger(), sources()],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    sourcemap: false,
    assetsInlineLimit: 0, // the security policy allows no data: fonts
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700, // kB: React, its accessible widgets, and this page
    license: { fileName: "licenses.md" },
    rollupOptions: {
      output: { entryFileNames: "page.js", chunkFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
  server: { proxy: Object.fromEntries(["/captions", "/models", "/search", "/openapi.json"].map((path) => [path, "http://127.0.0.1:8000"])) },
});
