// The routes of the service, and their refusals as errors that say what to do.

import { recall, remember } from "./remembered";

export interface Refusal {
  status: number;
  title: string;
  detail: string;
}

export interface Attention {
  height: number;
  width: number;
  /** One row a word, of height x width weights, row by row. */
  weights: number[][];
}

export interface Caption {
  text: string;
  probability: number | null;
  words: string[] | null;
  attention: Attention | null;
}

export interface Answer {
  model: string;
  name: string;
  version: string | null;
  error: Refusal | null;
  captions: Caption[];
}

export interface CaptionedImage {
  image: string;
  error: Refusal | null;
  answers: Answer[];
  /** A small copy as a data address, of a picture that was given by its address. */
  preview?: string | null;
}

export interface ServedModel {
  model: string;
  name: string;
  version: string | null;
  attends: boolean;
  method: string;
  scores: Record<string, number>;
  loaded_at: string;
}

export interface Limits {
  max_images: number;
  max_bytes: number;
  max_pixels: number;
  max_top: number;
}

export interface Models {
  models: ServedModel[];
  second_opinions: string[];
  limits: Limits;
  can_search: boolean;
  needs_key: boolean;
}

export interface CaptionPart {
  text: string;
  found: boolean;
}

export interface FoundImage {
  id: string;
  name: string;
  caption: CaptionPart[];
  score: number;
  thumbnail: string;
}

/** What is asked about every picture. */
export interface Wishes {
  top: number;
  models: string[];
}

export type Source = { file: File } | { url: string };

export class Refused extends Error {
  constructor(
    readonly refusal: Refusal,
    /** Seconds after which the service wants to be asked again. */
    readonly retryAfter: number | null = null,
  ) {
    super(refusal.detail);
  }
}

const UNREACHABLE: Refusal = {
  status: 0,
  title: "No answer",
  detail: "The service did not answer. Check that it is running and that you are connected, then try again.",
};

const KEY = "captioning-key";
let held = recall("sessionStorage", KEY) ?? "";

export const key = {
  read: () => held,
  keep: (value: string) => {
    held = value;
    remember("sessionStorage", KEY, value);
  },
};

function headers(): Record<string, string> {
  return key.read() ? { "X-API-Key": key.read() } : {};
}

function refused(status: number, body: string, retryAfter: string | null): Refused {
  const seconds = Number(retryAfter);
  const wait = retryAfter !== null && Number.isFinite(seconds) ? seconds : null;
  try {
    const { title, detail, images } = JSON.parse(body) as Partial<Refusal> & { images?: CaptionedImage[] };
    const own = images?.length === 1 ? images[0]?.error : null;
    if (own) return new Refused(own, wait);
    if (title && detail) return new Refused({ status, title, detail }, wait);
  } catch {
    // a proxy's page
  }
  const detail = `Something between this page and the service answered with status ${status}. Try again later.`;
  return new Refused({ status, title: "No usable answer", detail }, wait);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(path, { headers: headers(), signal: signal ?? null }).catch((error: unknown) => {
    if (signal?.aborted) throw error;
    throw new Refused(UNREACHABLE);
  });
  const body = await response.text();
  if (!response.ok) throw refused(response.status, body, response.headers.get("Retry-After"));
  return JSON.parse(body) as T;
}

export const models = () => get<Models>("models");

export const search = (query: string, signal: AbortSignal) =>
  get<{ images: FoundImage[] }>(`search?${new URLSearchParams({ q: query, top: "40" })}`, signal);

/** A picture of the service as an address for <img>; with a key it must be fetched, since <img> sends none. */
export async function pictureAddress(path: string): Promise<string> {
  if (!key.read()) return path;
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw new Refused(UNREACHABLE);
  return URL.createObjectURL(await response.blob());
}

function requestBody(source: Source, { top, models }: Wishes): FormData | string {
  if ("url" in source)
    return JSON.stringify({ images: [{ url: source.url }], top, models, attention: true, preview: true });
  const form = new FormData();
  form.append("images", source.file, source.file.name || "picture");
  form.append("top", String(top));
  form.append("attention", "true");
  for (const model of models) form.append("models", model);
  return form;
}

/** Captions one picture. `onSent` hears the share (0..1) that has been sent. XMLHttpRequest, since fetch cannot say it. */
export function caption(
  source: Source,
  wishes: Wishes,
  signal: AbortSignal,
  onSent: (share: number) => void,
): Promise<CaptionedImage> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "captions");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    const body = requestBody(source, wishes);
    if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
    request.upload.onprogress = ({ loaded, total }) => onSent(total ? loaded / total : 0);
    request.upload.onload = () => onSent(1);
    request.onerror = () => reject(new Refused(UNREACHABLE));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.onload = () => {
      const { status, responseText } = request;
      if (status !== 200) return reject(refused(status, responseText, request.getResponseHeader("Retry-After")));
      const [image] = (JSON.parse(responseText) as { images: CaptionedImage[] }).images;
      if (!image) return reject(new Refused(UNREACHABLE));
      return image.error ? reject(new Refused(image.error)) : resolve(image);
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}
