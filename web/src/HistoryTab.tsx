import { useEffect, useRef, useState } from "react";
import { Button } from "react-aria-components";
import { Answers } from "./Answers";
import * as history from "./history";
import { Print, type Look } from "./Print";
import { many, time } from "./words";

export function HistoryTab({ say }: { say: (text: string) => void }) {
  const [pasts, setPasts] = useState<history.Past[] | null>(null);
  const intro = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    const read = () => void history.all().then(setPasts, () => setPasts([]));
    read();
    return history.onKept(read); // what was captioned a moment ago may still be on its way there
  }, []);
  if (!pasts) return null;
  const onForget = async (id: string) => {
    await history.forget(id);
    setPasts(pasts.filter((own) => own.id !== id));
    intro.current?.focus();
    say("Removed from the history");
  };
  const onClear = async () => {
    await history.clear();
    setPasts([]);
    intro.current?.focus();
    say("The history is empty");
  };
  return (
    <>
      <p className="intro" ref={intro} tabIndex={-1}>
        {pasts.length ? `${many(pasts.length, "picture")} captioned in this browser.` : "Nothing here yet: what you caption is listed here."} The history
        is kept in this browser alone. Pictures and addresses are sent to this service and nowhere else, unless you ask for a second opinion.
      </p>
      {pasts.length > 0 && <ClearButton onClear={() => void onClear()} count={pasts.length} />}
      <div className="cards">
        {pasts.map((own) => (
          <PastCard key={own.id} past={own} say={say} onForget={() => void onForget(own.id)} />
        ))}
      </div>
    </>
  );
}

function PastCard({ past, say, onForget }: { past: history.Past; say: (text: string) => void; onForget: () => void }) {
  const [look, setLook] = useState<Look | null>(null);
  const address = useBlobAddress(past.thumbnail);
  return (
    <article className="card past" aria-label={past.name}>
      <Print name={past.name} address={address} alt={past.answers[0]?.captions[0]?.text ?? ""} look={look} />
      <div className="label">
        <div className="label-head">
          <h2 className="name">
            {past.name} <time dateTime={new Date(past.at).toISOString()}>{time(past.at)}</time>
          </h2>
          <Button className="button quiet" aria-label={`Remove ${past.name} from the history`} onPress={onForget}>
            Remove
          </Button>
        </div>
        <Answers answers={past.answers} level={3} shown={1} onLook={setLook} say={say} />
      </div>
    </article>
  );
}

/** Asks once more, in place. */
function ClearButton({ onClear, count }: { onClear: () => void; count: number }) {
  const [isAsking, setAsking] = useState(false);
  if (!isAsking)
    return (
      <Button className="button" onPress={() => setAsking(true)}>
        Clear the history
      </Button>
    );
  return (
    <div className="actions" role="group" aria-label="Clear the history?">
      <Button className="button danger" autoFocus onPress={onClear}>
        Remove {many(count, "picture")} for good
      </Button>
      <Button className="button" onPress={() => setAsking(false)}>
        Keep them
      </Button>
    </div>
  );
}

function useBlobAddress(blob: Blob | null): string | null {
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    if (!blob) return;
    const own = URL.createObjectURL(blob);
    setAddress(own);
    return () => URL.revokeObjectURL(own);
  }, [blob]);
  return address;
}
