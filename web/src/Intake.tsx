import { useEffect, useState, type FormEvent } from "react";
import { Button, DropZone, FieldError, FileTrigger, Form, Input, Label, Text, TextField } from "react-aria-components";
import type { DirectoryDropItem, DropItem } from "react-aria-components";
import type { Limits, Source } from "./service";
import { bytes, pixels } from "./words";

interface Props {
  limits: Limits;
  onSources: (sources: Source[]) => void;
  /** Hears what was dropped or pasted in vain. */
  onUnusable: (text: string) => void;
}

/** Pictures come in here: dropped, pasted, chosen, or named by an address. */
export function Intake({ limits, onSources, onUnusable }: Props) {
  useWholePage(onSources, onUnusable);
  const onDrop = async (items: DropItem[]) => {
    const sources = (await Promise.all(items.map(sourcesOf))).flat();
    if (sources.length === 0) onUnusable("There is no picture in what you dropped");
    onSources(sources);
  };
  return (
    <div className="intake">
      <DropZone className="drop" onDrop={({ items }) => void onDrop(items)}>
        <Text slot="label" className="drop-label">
          Drop pictures here, or paste them
        </Text>
        <FileTrigger acceptedFileTypes={["image/*"]} allowsMultiple onSelect={(files) => onSources(fromFiles(files))}>
          <Button className="button primary">Choose pictures</Button>
        </FileTrigger>
        <p className="quiet">
          Up to {bytes(limits.max_bytes)} and {pixels(limits.max_pixels)} each.
        </p>
      </DropZone>
      <AddressForm onSources={onSources} />
    </div>
  );
}

function AddressForm({ onSources }: Pick<Props, "onSources">) {
  const [url, setUrl] = useState("");
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    onSources([{ url: url.trim() }]);
    setUrl("");
  };
  return (
    <Form className="address" onSubmit={onSubmit}>
      <TextField className="field" value={url} onChange={setUrl} isRequired inputMode="url" autoComplete="off">
        <Label>Or the address of a picture</Label>
        <Input placeholder="https://example.org/photo.jpg" />
        <FieldError className="field-error">Type the address of a picture, such as https://example.org/photo.jpg</FieldError>
      </TextField>
      <Button className="button" type="submit">
        Caption it
      </Button>
    </Form>
  );
}

const fromFiles = (files: Iterable<File> | null): Source[] => [...(files ?? [])].map((file) => ({ file }));

const isAddress = (text: string) => /^https?:\/\/\S+$/.test(text.trim());

async function sourcesOf(item: DropItem): Promise<Source[]> {
  if (item.kind === "file") return [{ file: await item.getFile() }];
  if (item.kind === "directory") return sourcesIn(item);
  const type = ["text/uri-list", "text/plain"].find((own) => item.types.has(own));
  const text = type ? (await item.getText(type)).trim() : "";
  return isAddress(text) ? [{ url: text }] : [];
}

async function sourcesIn(folder: DirectoryDropItem): Promise<Source[]> {
  const found: Source[] = [];
  for await (const entry of folder.getEntries()) found.push(...(await sourcesOf(entry as DropItem)));
  return found.filter((own) => "file" in own && own.file.type.startsWith("image/"));
}

/** Dropping beside the drop zone, and pasting anywhere but into a field, do the same. */
function useWholePage(onSources: Props["onSources"], onUnusable: Props["onUnusable"]) {
  useEffect(() => {
    const onPaste = (event: ClipboardEvent) => {
      const isField = event.target instanceof Element && event.target.closest("input, textarea") !== null;
      if (event.defaultPrevented || isField || !event.clipboardData) return;
      const text = event.clipboardData.getData("text/plain");
      const files = fromFiles(event.clipboardData.files);
      const sources = files.length || !isAddress(text) ? files : [{ url: text.trim() }];
      if (sources.length === 0) onUnusable("There is no picture in what you pasted");
      onSources(sources);
    };
    const onDrag = (event: DragEvent) => event.preventDefault();
    const onDrop = (event: DragEvent) => {
      if (event.defaultPrevented) return;
      event.preventDefault();
      onSources(fromFiles(event.dataTransfer?.files ?? null));
    };
    addEventListener("paste", onPaste);
    addEventListener("dragover", onDrag);
    addEventListener("drop", onDrop);
    return () => {
      removeEventListener("paste", onPaste);
      removeEventListener("dragover", onDrag);
      removeEventListener("drop", onDrop);
    };
  }, [onSources, onUnusable]);
}
