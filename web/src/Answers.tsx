import { useState } from "react";
import { Button, Disclosure, DisclosurePanel, Heading } from "react-aria-components";
import { CaptionLine } from "./CaptionLine";
import { fullName } from "./ModelsInService";
import type { Look } from "./Print";
import { RefusalNote } from "./RefusalNote";
import type { Answer, Caption } from "./service";
import { many } from "./words";

interface Props {
  answers: Answer[];
  /** Of the headings that name the models. */
  level: number;
  /** Captions a model that are shown at once; the others can be unfolded. */
  shown?: number;
  onLook: (look: Look | null) => void;
  say: (text: string) => void;
}

/** The captions of one picture, model beside model. */
export function Answers({ answers, level, shown = Infinity, onLook, say }: Props) {
  // the word that was pressed stays lit while none is pointed at
  const [pinned, setPinned] = useState<{ line: string; look: Look } | null>(null);
  const onPin = (line: string, look: Look | null) => {
    setPinned(look && { line, look });
    onLook(look);
  };
  const line = (answer: Answer, caption: Caption, number: number) => {
    const id = `${answer.model} ${answer.name} ${number}`;
    return (
      <CaptionLine
        key={id}
        caption={caption}
        largest={answer.captions[0]?.probability ?? 0}
        pinned={pinned?.line === id ? pinned.look : null}
        onPin={(look) => onPin(id, look)}
        onPoint={(look) => onLook(look ?? pinned?.look ?? null)}
        say={say}
      />
    );
  };
  return (
    <div className="answers">
      {answers.map((answer) => {
        const lines = answer.captions.map((caption, number) => line(answer, caption, number));
        return (
          <section key={`${answer.model} ${answer.name}`} className="answer">
            <Heading level={level} className="model">
              <span className="model-role">{answer.model}</span> {fullName(answer)}
            </Heading>
            {answer.error && <RefusalNote refusal={answer.error} />}
            <ol className="captions">{lines.slice(0, shown)}</ol>
            {lines.length > shown && (
              <Disclosure>
                <Button slot="trigger" className="button quiet more">
                  {many(lines.length - shown, "more caption")} <span className="chevron" aria-hidden="true" />
                </Button>
                <DisclosurePanel>
                  <ol className="captions" start={shown + 1}>
                    {lines.slice(shown)}
                  </ol>
                </DisclosurePanel>
              </Disclosure>
            )}
          </section>
        );
      })}
    </div>
  );
}

export const attends = (answers: Answer[]) => answers.some(({ captions }) => captions.some((own) => own.attention !== null));
