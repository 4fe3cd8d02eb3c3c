import type { ReactNode } from "react";
import { Button } from "react-aria-components";
import type { Refusal } from "./service";

/** Why something was refused, in the service's words, and what can be done here. */
export function RefusalNote({ refusal, onAgain, children }: { refusal: Refusal; onAgain?: () => void; children?: ReactNode }) {
  return (
    <div className="note refusal">
      <p className="note-title">{refusal.title}</p>
      <p>{refusal.detail}</p>
      <div className="actions">
        {onAgain && (
          <Button className="button" onPress={onAgain}>
            Try again
          </Button>
        )}
        {children}
      </div>
    </div>
  );
}
