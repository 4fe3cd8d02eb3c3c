import { useState } from "react";
import { Button, Label, ProgressBar } from "react-aria-components";
import { Answers } from "./Answers";
import { Print, type Look } from "./Print";
import type { Picture } from "./queue";
import { RefusalNote } from "./RefusalNote";

interface Props {
  picture: Picture;
  say: (text: string) => void;
  onCancel: () => void;
  onRetry: () => void;
  onScale: () => void;
  onRemove: () => void;
}

/** One picture: itself, and its captions or what stands in their way. */
export function PictureCard(props: Props) {
  const { picture, say, onRemove } = props;
  const [look, setLook] = useState<Look | null>(null);
  const { state } = picture;
  const alt = state.is === "done" ? (state.answers[0]?.captions[0]?.text ?? "") : "";
  return (
    <article className="card" aria-label={picture.name}>
      <Print name={picture.name} address={picture.address} alt={alt} look={look} />
      <div className="label">
        <div className="label-head">
          <h3 className="name">{picture.name}</h3>
          <Button className="button quiet" aria-label={`Remove ${picture.name}`} onPress={onRemove}>
            Remove
          </Button>
        </div>
        {state.is === "done" ? <Answers answers={state.answers} level={4} onLook={setLook} say={say} /> : <Progress {...props} />}
      </div>
    </article>
  );
}

function Progress({ picture: { state, name }, onCancel, onRetry, onScale }: Props) {
  if (state.is === "refused") return <RefusalNote refusal={state.refusal} onAgain={onRetry} />;
  if (state.is === "cancelled")
    return <RefusalNote refusal={{ status: 0, title: "Cancelled", detail: "This picture has no caption." }} onAgain={onRetry} />;
  if (state.is === "too large")
    return (
      <RefusalNote refusal={{ status: 413, title: "Too large", detail: state.detail }}>
        {state.canScale && (
          <Button className="button" onPress={onScale}>
            Scale it down here and caption it
          </Button>
        )}
      </RefusalNote>
    );
  return (
    <div className="progress">
      <ProgressBar className="bar-box" isIndeterminate={state.is !== "sending"} value={state.is === "sending" ? 100 * state.share : 0}>
        {({ percentage }) => (
          <>
            <Label>{progressText(state)}</Label>
            <progress className="bar" aria-hidden="true" max={100} value={state.is === "sending" ? percentage : undefined} />
          </>
        )}
      </ProgressBar>
      <Button className="button quiet" aria-label={`Cancel ${name}`} onPress={onCancel}>
        Cancel
      </Button>
    </div>
  );
}

function progressText(state: Picture["state"]): string {
  if (state.is === "sending") return `Sending, ${Math.round(100 * state.share)}%`;
  if (state.is === "captioning") return "Looking at it";
  if (state.is !== "waiting") return "";
  if (state.until === undefined) return "Waiting for its turn";
  return Number.isFinite(state.until) ? "The service is busy: it will be asked again by itself" : "Reading the picture";
}
