import { useEffect, useState } from "react";
import { Button, Input, Label, SearchField, Text } from "react-aria-components";
import { RefusalNote } from "./RefusalNote";
import { pictureAddress, Refused, search, type FoundImage, type Refusal } from "./service";
import { many } from "./words";

const PAUSE_MILLISECONDS = 250;

interface Props {
  query: string;
  onQuery: (query: string) => void;
  say: (text: string) => void;
}

export function SearchTab({ query, onQuery, say }: Props) {
  const [found, setFound] = useState<FoundImage[] | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  useEffect(() => {
    const asked = query.trim();
    setRefusal(null);
    if (!asked) return setFound(null);
    const controller = new AbortController();
    const ask = async () => {
      try {
        const { images } = await search(asked, controller.signal);
        setFound(images);
        say(`${many(images.length, "picture")} found`);
      } catch (error) {
        if (controller.signal.aborted) return;
        if (!(error instanceof Refused)) throw error;
        setRefusal(error.refusal);
      }
    };
    const timer = setTimeout(() => void ask(), PAUSE_MILLISECONDS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [query, say]);
  return (
    <>
      <SearchField className="field search" value={query} onChange={onQuery}>
        <Label>Find pictures by what is in them</Label>
        <div className="search-box">
          <Input placeholder="person sitting on a bench" />
          <Button className="button quiet search-clear">Clear</Button>
        </div>
        <Text slot="description">“In quotes” stands together; -word is not in the caption.</Text>
      </SearchField>
      {refusal && <RefusalNote refusal={refusal} onAgain={() => onQuery(`${query} `)} />}
      {found && !refusal && <Found found={found} />}
    </>
  );
}

function Found({ found }: { found: FoundImage[] }) {
  if (found.length === 0) return <p className="intro">No caption has these words. Try fewer, or others.</p>;
  return (
    <section aria-label="Found pictures">
      <h2 className="found-count">{many(found.length, "picture")}, the best match first</h2>
      <ul className="found">
        {found.map((own) => (
          <li key={own.id}>
            <FoundPicture image={own} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function FoundPicture({ image }: { image: FoundImage }) {
  const address = useAddress(image.thumbnail);
  const text = image.caption.map((own) => own.text).join("");
  return (
    <figure className="found-picture">
      <div className="mat">{address ? <img src={address} alt={text} loading="lazy" /> : <div className="no-picture" />}</div>
      <figcaption>
        <span className="found-caption">{image.caption.map((part, number) => (part.found ? <mark key={number}>{part.text}</mark> : part.text))}</span>
        <span className="name">{image.name}</span>
      </figcaption>
    </figure>
  );
}

function useAddress(path: string): string | null {
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    let own: string | null = null;
    let isGone = false;
    pictureAddress(path).then(
      (found) => {
        own = found;
        if (!isGone) setAddress(found);
      },
      () => undefined, // its caption is shown without it
    );
    return () => {
      isGone = true;
      if (own?.startsWith("blob:")) URL.revokeObjectURL(own);
    };
  }, [path]);
  return address;
}
