// The pictures on the page: checked, sent a few at a time, answered or refused.

import * as history from "./history";
import { blobOf, scaledDown, sizeOf, thumbnail, tooLarge, type Size } from "./pictures";
import { caption, Refused, type Answer, type Limits, type Refusal, type Source, type Wishes } from "./service";

/** Requests at a time: the service puts them into one batch. */
const AT_ONCE = 4;
/** A busy service is asked again by itself so often. */
const MOST_WAITS = 5;
const LONGEST_WAIT_SECONDS = 60;

export type State =
  | { is: "waiting"; until?: number }
  | { is: "sending"; share: number }
  | { is: "captioning" }
  | { is: "done"; answers: Answer[] }
  | { is: "too large"; detail: string; canScale: boolean }
  | { is: "refused"; refusal: Refusal }
  | { is: "cancelled" };

export interface Picture {
  id: string;
  name: string;
  source: Source;
  /** For <img>; null while it is unknown or where this browser cannot show it. */
  address: string | null;
  size: Size | null;
  state: State;
}

type Listener = () => void;

export class Queue {
  private pictures: readonly Picture[] = [];
  private readonly listeners = new Set<Listener>();
  private readonly running = new Map<string, AbortController>();
  private readonly wishes = new Map<string, Wishes>();
  private readonly waits = new Map<string, number>();

  constructor(
    /** Hears what a screen reader should say. */
    private readonly say: (text: string) => void,
  ) {}

  subscribe = (listener: Listener) => {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  };

  read = () => this.pictures;

  async add(sources: Source[], wishes: Wishes, limits: Limits): Promise<void> {
    const added = sources.map((source) => this.picture(source));
    this.set([...added, ...this.pictures]);
    for (const { id } of added) this.wishes.set(id, wishes);
    await Promise.all(added.map((own) => this.check(own, limits)));
  }

  cancel(id: string): void {
    this.running.get(id)?.abort();
    this.change(id, { state: { is: "cancelled" } });
  }

  remove(id: string): void {
    this.running.get(id)?.abort();
    const address = this.find(id)?.address;
    if (address?.startsWith("blob:")) URL.revokeObjectURL(address);
    this.set(this.pictures.filter((own) => own.id !== id));
  }

  clear(): void {
    for (const { id } of this.pictures) this.remove(id);
  }

  retry(id: string): void {
    this.waits.delete(id);
    this.change(id, { state: { is: "waiting" } });
    this.sendNext();
  }

  async scale(id: string, limits: Limits): Promise<void> {
    const source = this.find(id)?.source;
    if (!source || !("file" in source)) return;
    this.change(id, { state: { is: "waiting", until: Infinity } });
    const file = await scaledDown(source.file, limits).catch(() => null);
    if (file) {
      this.change(id, { source: { file } });
      this.retry(id);
    } else {
      const detail = "This browser cannot scale this picture down. Make a smaller copy of it and add that.";
      this.change(id, { state: { is: "too large", detail, canScale: false } });
    }
  }

  private picture(source: Source): Picture {
    const name = "file" in source ? source.file.name || "pasted picture" : source.url;
    const address = "file" in source ? URL.createObjectURL(source.file) : null;
    return { id: crypto.randomUUID?.() ?? String(Math.random()), name, source, address, size: null, state: { is: "waiting", until: Infinity } };
  }

  /** Sends a picture, unless the service would refuse it for its size. */
  private async check({ id, source, address, name }: Picture, limits: Limits): Promise<void> {
    const size = address ? await sizeOf(address) : null;
    this.change(id, { size, address: size ? address : null });
    const detail = "file" in source ? tooLarge(source.file, size, limits) : null;
    if (detail === null) return this.retry(id);
    this.change(id, { state: { is: "too large", detail, canScale: size !== null } });
    this.say(`${name}: ${detail}`);
  }

  private sendNext(): void {
    const now = Date.now();
    for (const own of this.pictures.toReversed()) {
      if (this.running.size >= AT_ONCE) return;
      if (own.state.is === "waiting" && (own.state.until ?? 0) <= now) void this.send(own);
    }
  }

  private async send({ id, source, name }: Picture): Promise<void> {
    const controller = new AbortController();
    const wishes = this.wishes.get(id);
    if (!wishes) return;
    this.running.set(id, controller);
    this.change(id, { state: { is: "sending", share: 0 } });
    const onSent = (share: number) => {
      if (!controller.signal.aborted) this.change(id, { state: share < 1 ? { is: "sending", share } : { is: "captioning" } });
    };
    try {
      const { answers, preview } = await caption(source, wishes, controller.signal, onSent);
      if (preview) this.change(id, { address: preview });
      this.change(id, { state: { is: "done", answers } });
      this.say(spoken(name, answers));
      void this.remember(id, answers);
    } catch (error) {
      if (!controller.signal.aborted) this.fail(id, name, error);
    } finally {
      this.running.delete(id);
      this.sendNext();
    }
  }

  private fail(id: string, name: string, error: unknown): void {
    if (!(error instanceof Refused)) throw error;
    const waits = this.waits.get(id) ?? 0;
    const { refusal, retryAfter } = error;
    if ([429, 503].includes(refusal.status) && retryAfter !== null && retryAfter <= LONGEST_WAIT_SECONDS && waits < MOST_WAITS) {
      this.waits.set(id, waits + 1);
      const milliseconds = 1000 * Math.max(1, retryAfter);
      this.change(id, { state: { is: "waiting", until: Date.now() + milliseconds } });
      setTimeout(() => this.sendNext(), milliseconds + 10);
      return;
    }
    this.change(id, { state: { is: "refused", refusal } });
    this.say(`${name}: ${refusal.title}. ${refusal.detail}`);
  }

  private async remember(id: string, answers: Answer[]): Promise<void> {
    const own = this.find(id);
    if (!own) return;
    const blob = "file" in own.source ? own.source.file : own.address ? blobOf(own.address) : null;
    const past = { id, at: Date.now(), name: own.name, thumbnail: blob && (await thumbnail(blob)), answers };
    // private windows may refuse it: the page then works without a history
    await history.keep(past).catch(() => undefined);
  }

  private find = (id: string) => this.pictures.find((own) => own.id === id);

  private change(id: string, changes: Partial<Picture>): void {
    this.set(this.pictures.map((own) => (own.id === id ? { ...own, ...changes } : own)));
  }

  private set(pictures: readonly Picture[]): void {
    this.pictures = pictures;
    for (const listener of this.listeners) listener();
  }
}

function spoken(name: string, answers: Answer[]): string {
  const said = answers.map(({ model, captions }) => {
    const text = captions[0]?.text ?? "no caption";
    return answers.length > 1 ? `${model}: ${text}` : text;
  });
  return `${name}: ${said.join(". ")}`;
}
