import { useCallback, useState } from "react";

interface Message {
  number: number;
  text: string;
}

let count = 0;

export function useAnnouncements() {
  const [messages, setMessages] = useState<Message[]>([]);
  const say = useCallback((text: string) => setMessages((own) => [...own.slice(-5), { number: ++count, text }]), []);
  return { messages, say };
}

/** What a screen reader says as it happens, one message after the other. */
export function Announcements({ messages }: { messages: Message[] }) {
  return (
    <div className="hidden" role="log" aria-live="polite" aria-label="What happened">
      {messages.map(({ number, text }) => (
        <p key={number}>{text}</p>
      ))}
    </div>
  );
}
