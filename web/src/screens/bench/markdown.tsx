/** Markdown as elements. The text is read by `marked`'s lexer; what stands on the page is made here, one kind of token at a
 * time, so that nothing in a note is ever HTML, a script or a request to another host. */
import { Lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { address } from "../../api/client";

/** Where a link of a note leads. */
export type Target =
  | { to: "heading"; id: string }
  | { to: "web"; href: string }
  | { to: "file"; name: string; heading?: string }
  | { to: "nowhere" };

/** The path of `link`, seen from the file `from`, below the workspace; undefined where it leads out of it. */
export function below(from: string, link: string): string | undefined {
  let path = link;
  try {
    path = decodeURIComponent(link);
  } catch {
    // a lone %: as it is written
  }
  if (path.startsWith("/") || path.includes("\\") || path.includes("\0")) return undefined;
  const parts = from.split("/").slice(0, -1);
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.join("/");
}

/** Only http, https and mailto lead out; everything else is a file of the workspace or nothing. */
export function target(from: string, href: string): Target {
  const link = href.trim();
  if (link.startsWith("#")) return { to: "heading", id: slug(decoded(link.slice(1))) };
  if (/^(https?:\/\/|mailto:)[^\s]+$/i.test(link)) return { to: "web", href: link };
  if (/^[a-z][a-z0-9+.-]*:/i.test(link) || link.startsWith("//") || link === "") return { to: "nowhere" };
  const [path, heading] = link.split("#", 2) as [string, string | undefined];
  const name = below(from, path);
  if (name === undefined || name === "") return { to: "nowhere" };
  return { to: "file", name, ...(heading ? { heading } : {}) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A heading's name in a link, as GitHub makes it. */
export function slug(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replace(/\s/g, "-");
}

const NAMED: Record<string, string> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  times: "×",
  minus: "−",
  ndash: "–",
  mdash: "—",
  hellip: "…",
  rarr: "→",
  larr: "←",
  le: "≤",
  ge: "≥",
  ne: "≠",
  middot: "·",
};

/** `&amp;`, `&#955;` and the like as characters; names that are not known stay as they are written. */
export function entities(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]+));/gi, (whole, decimal, hex, name) => {
    if (name) return NAMED[name] ?? whole;
    const code = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    const valid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    return valid ? String.fromCodePoint(code) : "\ufffd";
  });
}

const DEEPEST = 24; // lists and quotations in each other

interface Context {
  /** The note's own name. */
  from: string;
  depth?: number;
  onOpen: (name: string, heading?: string) => void;
}

const PICTURE = /\.(png|jpe?g|gif|webp|svg)$/i;
const OPENS = /\.(md|markdown)$/i;

function link(token: Tokens.Link, context: Context): ComponentChildren {
  const inside = inline(token.tokens, context);
  const found = target(context.from, entities(token.href));
  if (found.to === "web")
    return (
      <a
        href={found.href}
        target="_blank"
        rel="noopener noreferrer"
        title={`${found.href} (leaves the studio)`}
        data-control="bench.note-web"
      >
        {inside}
      </a>
    );
  if (found.to === "heading")
    return (
      <button
        type="button"
        class="note-link"
        data-control="bench.note-heading"
        onClick={() => scrollTo(found.id)}
      >
        {inside}
      </button>
    );
  if (found.to === "file" && OPENS.test(found.name))
    return (
      <button
        type="button"
        class="note-link"
        data-control="bench.note-link"
        title={found.name}
        onClick={() => context.onOpen(found.name, found.heading)}
      >
        {inside}
      </button>
    );
  return (
    <span class="note-path" title={found.to === "file" ? `a file: ${found.name}` : "this link leads nowhere"}>
      {inside}
    </span>
  );
}

/** The heading of that name, in view. */
export function scrollTo(id: string): void {
  document.getElementById(`note-${id}`)?.scrollIntoView({ block: "start" });
}

function picture(token: Tokens.Image, context: Context): ComponentChildren {
  const found = target(context.from, entities(token.href));
  const words = entities(token.text);
  if (found.to === "file" && PICTURE.test(found.name))
    return <img src={address("/api/notes/picture", { name: found.name })} alt={words} loading="lazy" />;
  return (
    <span class="note-missing" title={token.href}>
      {words || "picture"} (a picture that is not in the workspace is not loaded)
    </span>
  );
}

function inline(tokens: readonly Token[] | undefined, context: Context): ComponentChildren {
  return (tokens ?? []).map((token) => span(token as Tokens.Generic, context));
}

function span(token: Tokens.Generic, context: Context): ComponentChildren {
  switch (token.type) {
    case "strong":
      return <strong>{inline(token.tokens, context)}</strong>;
    case "em":
      return <em>{inline(token.tokens, context)}</em>;
    case "del":
      return <del>{inline(token.tokens, context)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "link":
      return link(token as Tokens.Link, context);
    case "image":
      return picture(token as Tokens.Image, context);
    case "html":
      return /^<br\s*\/?>$/i.test(token.raw.trim()) ? (
        <br />
      ) : token.raw.startsWith("<!--") ? null : (
        token.raw
      );
    case "checkbox":
      return null; // the list draws it
    case "text":
      return token.tokens ? inline(token.tokens, context) : entities(token.text);
    default:
      return entities(String(token.text ?? token.raw));
  }
}

function blocks(tokens: readonly Token[] | undefined, outer: Context): ComponentChildren {
  const context = { ...outer, depth: (outer.depth ?? 0) + 1 };
  if (context.depth > DEEPEST) return (tokens ?? []).map((token) => token.raw).join("");
  return (tokens ?? []).map((token) => block(token as Tokens.Generic, context));
}

function block(token: Tokens.Generic, context: Context): ComponentChildren {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      // the page has its own h1: a note's headings begin one below
      const Tag = `h${Math.min(6, (token.depth as number) + 1)}` as "h2";
      return <Tag id={`note-${slug(entities(token.text))}`}>{inline(token.tokens, context)}</Tag>;
    }
    case "paragraph":
      return <p>{inline(token.tokens, context)}</p>;
    case "blockquote":
      return <blockquote>{blocks(token.tokens, context)}</blockquote>;
    case "hr":
      return <hr />;
    case "code":
      return (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keys
        <pre tabIndex={0}>
          <code>{token.text}</code>
        </pre>
      );
    case "list":
      return list(token as Tokens.List, context);
    case "table":
      return table(token as Tokens.Table, context);
    case "html":
      return token.raw.startsWith("<!--") ? null : <p class="note-html">{token.raw}</p>;
    default:
      return span(token, context);
  }
}

function list(token: Tokens.List, context: Context): ComponentChildren {
  const lines = token.items.map((item, i) => (
    <li key={i} class={item.task ? "note-task" : undefined}>
      {item.task && (
        <span role="img" aria-label={item.checked ? "done" : "to do"}>
          {item.checked ? "☑ " : "☐ "}
        </span>
      )}
      {blocks(item.tokens, context)}
    </li>
  ));
  return token.ordered ? <ol start={token.start === "" ? 1 : token.start}>{lines}</ol> : <ul>{lines}</ul>;
}

function table(token: Tokens.Table, context: Context): ComponentChildren {
  const side = (align: string | null) =>
    align === "right" || align === "center" ? `to-${align}` : undefined;
  return (
    <div class="table-frame">
      <table class="table">
        <thead>
          <tr>
            {token.header.map((cell, i) => (
              <th key={i} class={side(cell.align)}>
                {inline(cell.tokens, context)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {token.rows.map((row, r) => (
            <tr key={r}>
              {row.map((cell, i) => (
                <td key={i} class={side(cell.align)}>
                  {inline(cell.tokens, context)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface MarkdownProps extends Context {
  text: string;
}

/** A note. What cannot be read as Markdown (a thousand quotations in each other) is shown as it is written. */
export function Markdown({ text, ...context }: MarkdownProps) {
  let shown: ComponentChildren;
  try {
    shown = blocks(new Lexer({ gfm: true }).lex(text), context);
  } catch {
    shown = <pre>{text}</pre>;
  }
  return <div class="markdown">{shown}</div>;
}

/** One line of it: a sentence with emphasis. */
export function Sentence({ text }: { text: string }) {
  return <>{inline(Lexer.lexInline(text, { gfm: true }), { from: "", onOpen: () => {} })}</>;
}
