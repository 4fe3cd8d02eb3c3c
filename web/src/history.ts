// What this browser has captioned, in its own database; nothing of it is sent anywhere.

import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { Answer } from "./service";

const STORE = "pictures";
const MOST = 200;

export interface Past {
  id: string;
  /** Milliseconds since 1970. */
  at: number;
  name: string;
  thumbnail: Blob | null;
  answers: Answer[];
}

interface Schema extends DBSchema {
  [STORE]: { key: string; value: Past; indexes: { at: number } };
}

const changes = new EventTarget();
const KEPT = "kept";

/** Calls `hear` whenever a picture has been kept; returns what ends that. */
export function onKept(hear: () => void): () => void {
  changes.addEventListener(KEPT, hear);
  return () => changes.removeEventListener(KEPT, hear);
}

let opened: Promise<IDBPDatabase<Schema>> | null = null;

function database(): Promise<IDBPDatabase<Schema>> {
  opened ??= openDB<Schema>("captioning", 1, {
    upgrade: (own) => void own.createObjectStore(STORE, { keyPath: "id" }).createIndex("at", "at"),
  });
  return opened;
}

/** The newest first. */
export async function all(): Promise<Past[]> {
  return (await (await database()).getAllFromIndex(STORE, "at")).reverse();
}

/** Keeps one, and forgets the oldest beyond `MOST`. */
export async function keep(past: Past): Promise<void> {
  const own = await database();
  await own.put(STORE, past);
  const keys = await own.getAllKeysFromIndex(STORE, "at");
  for (const old of keys.slice(0, Math.max(0, keys.length - MOST))) await own.delete(STORE, old);
  changes.dispatchEvent(new Event(KEPT));
}

export const forget = async (id: string): Promise<void> => (await database()).delete(STORE, id);
export const clear = async (): Promise<void> => (await database()).clear(STORE);
