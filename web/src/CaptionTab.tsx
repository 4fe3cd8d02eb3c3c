import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { Button, Heading } from "react-aria-components";
import { attends } from "./Answers";
import { Intake } from "./Intake";
import { KeyForm } from "./KeyForm";
import { PictureCard } from "./PictureCard";
import type { Queue } from "./queue";
import { recall, remember } from "./remembered";
import type { Models, Source, Wishes } from "./service";
import { many } from "./words";
import { WishesForm } from "./WishesForm";

const TOP = "captioning-top";

interface Props {
  queue: Queue;
  models: Models;
  say: (text: string) => void;
  onKey: () => void;
}

export function CaptionTab({ queue, models, say, onKey }: Props) {
  const pictures = useSyncExternalStore(queue.subscribe, queue.read);
  const heading = useRef<HTMLHeadingElement>(null);
  const [wishes, setWishes] = useWishes(models);
  const onSources = useCallback(
    (sources: Source[]) => {
      if (sources.length === 0) return;
      say(`${many(sources.length, "picture")} added`);
      void queue.add(sources, wishes, models.limits);
    },
    [queue, wishes, models, say],
  );
  const onRemove = (id: string) => {
    queue.remove(id);
    heading.current?.focus();
  };
  const isKeyRefused = pictures.some(({ state }) => state.is === "refused" && state.refusal.status === 401);
  const onNewKey = () => {
    onKey();
    for (const { id, state } of pictures) if (state.is === "refused" && state.refusal.status === 401) queue.retry(id);
  };
  return (
    <>
      <Intake limits={models.limits} onSources={onSources} onUnusable={say} />
      <WishesForm models={models} wishes={wishes} onChange={setWishes} />
      {isKeyRefused && <KeyForm refusal={{ status: 401, title: "", detail: "This key was refused." }} onKey={onNewKey} />}
      <section className="cards" aria-label="Captioned pictures">
        <div className="cards-head">
          <Heading level={2} ref={heading} tabIndex={-1} className={pictures.length ? "" : "hidden"}>
            {many(pictures.length, "picture")}
          </Heading>
          {pictures.some(({ state }) => state.is === "done" && attends(state.answers)) && (
            <p className="hint">Point at a word, or tap it, to see where the model looked. The bars compare captions of one model.</p>
          )}
          {pictures.length > 1 && (
            <Button className="button quiet" onPress={() => queue.clear()}>
              Remove all from this page
            </Button>
          )}
        </div>
        {pictures.map((own) => (
          <PictureCard
            key={own.id}
            picture={own}
            say={say}
            onCancel={() => queue.cancel(own.id)}
            onRetry={() => queue.retry(own.id)}
            onScale={() => void queue.scale(own.id, models.limits)}
            onRemove={() => onRemove(own.id)}
          />
        ))}
      </section>
    </>
  );
}

/** What is asked about the next pictures: remembered, as far as the models in service still allow it. */
function useWishes({ models, limits }: Models): [Wishes, (wishes: Wishes) => void] {
  const first = models[0]?.model ?? "champion";
  const [wishes, setWishes] = useState<Wishes>(() => ({
    top: Math.min(Number(recall("localStorage", TOP)) || 3, limits.max_top),
    models: [first],
  }));
  useEffect(() => remember("localStorage", TOP, String(wishes.top)), [wishes.top]);
  return [wishes, setWishes];
}
