// Numbers and places in words.

import type { Attention } from "./service";

const percentFormat = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });
const numberFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const timeFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const percent = (share: number) => (share < 1e-6 ? "under 0.0001%" : percentFormat.format(share));
export const megabytes = (count: number) => numberFormat.format(count / 1e6);
export const bytes = (count: number) => (count < 1e5 ? `${numberFormat.format(count / 1e3)} kB` : `${megabytes(count)} MB`);
export const pixels = (count: number) => `${numberFormat.format(count / 1e6)} megapixels`;
export const time = (moment: string | number) => timeFormat.format(new Date(moment));
export const many = (count: number, one: string, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

const ACRONYMS: Record<string, string> = { cider: "CIDEr", meteor: "METEOR", rouge_l: "ROUGE-L", spice: "SPICE" };

export function scoreName(name: string): string {
  if (name.startsWith("bleu_")) return `BLEU-${name.slice(5)}`;
  return ACRONYMS[name] ?? name.replaceAll("_", " ");
}

const NINTHS = [
  "the upper left", "the top", "the upper right",
  "the left", "the middle", "the right",
  "the lower left", "the bottom", "the lower right",
];

/** The share of each third of a side that a cell of a grid covers. */
const thirds = (cell: number, cells: number) =>
  [0, 1, 2].map((third) => Math.max(0, Math.min((cell + 1) / cells, (third + 1) / 3) - Math.max(cell / cells, third / 3)) * cells);

/** Where the model looked at one word: the ninth of the picture that has most of the weight, if that is much more than a ninth. */
export function place({ height, width, weights }: Attention, word: number): string {
  const shares = new Array<number>(9).fill(0);
  weights[word]?.forEach((weight, cell) => {
    const across = thirds(cell % width, width);
    thirds(Math.floor(cell / width), height).forEach((down, row) => {
      across.forEach((share, column) => (shares[3 * row + column]! += weight * down * share));
    });
  });
  const most = Math.max(...shares);
  return most < 0.2 ? "all over the picture" : `at ${NINTHS[shares.indexOf(most)]}`;
}
