import { useEffect, useState } from "react";
import { Button } from "react-aria-components";

export function CopyButton({ text, say }: { text: string; say: (text: string) => void }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [isCopied]);
  const onPress = async () => {
    const isDone = await copy(text);
    setCopied(isDone);
    say(isDone ? `Copied: ${text}` : "This browser did not let the text be copied: select it and copy it yourself");
  };
  return (
    <Button className="button small" aria-label={`Copy alt text: ${text}`} onPress={() => void onPress()}>
      {isCopied ? "Copied" : "Copy alt text"}
    </Button>
  );
}

async function copy(text: string): Promise<boolean> {
  // browsers have navigator.clipboard only at https addresses and localhost
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" });
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}
