import { type CSSProperties, useRef } from "react";
import { ToggleButton, ToggleButtonGroup } from "react-aria-components";
import { CopyButton } from "./CopyButton";
import type { Look } from "./Print";
import type { Caption } from "./service";
import { percent, place } from "./words";

interface Props {
  caption: Caption;
  /** Probability of this model's first caption, which the bar is drawn against. */
  largest: number;
  pinned: Look | null;
  onPin: (look: Look | null) => void;
  onPoint: (look: Look | null) => void;
  say: (text: string) => void;
}

export function CaptionLine({ caption, largest, pinned, onPin, onPoint, say }: Props) {
  const { text, probability, words, attention } = caption;
  const isLookable = words !== null && words.length > 0 && attention !== null;
  return (
    <li className="caption">
      {isLookable ? (
        <>
          <span className="hidden">{text}</span>
          <Words caption={caption} pinned={pinned} onPin={onPin} onPoint={onPoint} />
        </>
      ) : (
        <p className="words">{text || "(an empty caption)"}</p>
      )}
      <div className="caption-foot">
        {probability !== null && <Probability value={probability} largest={largest} />}
        <CopyButton text={text} say={say} />
      </div>
    </li>
  );
}

/** The words as buttons: one stop of the Tab key, arrow keys from word to word. */
function Words({ caption: { words, attention }, pinned, onPin, onPoint }: Pick<Props, "caption" | "pinned" | "onPin" | "onPoint">) {
  const focused = useRef<Look | null>(null);
  if (!words || !attention) return null;
  const looks = words.map((text, word): Look => ({ text, word, attention }));
  const onFocus = (look: Look, element: Element) => {
    if (!element.matches(":focus-visible")) return;
    focused.current = look;
    onPoint(look);
  };
  const onBlur = () => {
    focused.current = null;
    onPoint(null);
  };
  return (
    <ToggleButtonGroup
      className="words"
      aria-label="Words of this caption: where the model looked at each"
      selectionMode="single"
      selectedKeys={pinned ? [pinned.word] : []}
      onSelectionChange={(keys) => onPin(looks[Number([...keys][0])] ?? null)}
    >
      {looks.map((look) => (
        <ToggleButton
          key={look.word}
          id={look.word}
          className="word"
          aria-label={`${look.text}: looked ${place(attention, look.word)}`}
          onHoverStart={() => onPoint(look)}
          onHoverEnd={() => onPoint(focused.current)}
          onFocus={(event) => onFocus(look, event.target)}
          onBlur={onBlur}
        >
          {look.text}
        </ToggleButton>
      ))}
    </ToggleButtonGroup>
  );
}

function Probability({ value, largest }: { value: number; largest: number }) {
  const share = largest > 0 ? Math.min(1, value / largest) : 0;
  return (
    <p className="probability">
      <span className="probability-bar" aria-hidden="true" style={{ "--share": share } as CSSProperties} />
      <span className="hidden">probability </span>
      {percent(value)}
    </p>
  );
}
