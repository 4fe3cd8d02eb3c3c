import { useState, type FormEvent } from "react";
import { Button, Form, Input, Label, Text, TextField } from "react-aria-components";
import { key, type Refusal } from "./service";

/** Asks for the API key; kept until this tab is closed. */
export function KeyForm({ refusal, onKey }: { refusal?: Refusal; onKey: () => void }) {
  const [value, setValue] = useState("");
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    key.keep(value.trim());
    onKey();
  };
  return (
    <Form className="note key" onSubmit={onSubmit}>
      {refusal && <p role="alert">{key.read() ? refusal.detail : "This service asks for a key."}</p>}
      <TextField className="field" type="password" value={value} onChange={setValue} isRequired autoComplete="off">
        <Label>API key</Label>
        <Input />
        <Text slot="description">Whoever runs this service has it. It is kept until you close this tab.</Text>
      </TextField>
      <Button className="button primary" type="submit">
        Use this key
      </Button>
    </Form>
  );
}
