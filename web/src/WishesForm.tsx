import { Button, Checkbox, CheckboxGroup, Group, Input, Label, NumberField } from "react-aria-components";
import { fullName } from "./ModelsInService";
import type { Models, Wishes } from "./service";

interface Props {
  models: Models;
  wishes: Wishes;
  onChange: (wishes: Wishes) => void;
}

/** How many captions, and whose. */
export function WishesForm({ models, wishes, onChange }: Props) {
  const hasChoice = models.models.length + models.second_opinions.length > 1;
  return (
    <div className="wishes">
      <NumberField
        className="number"
        minValue={1}
        maxValue={models.limits.max_top}
        value={wishes.top}
        onChange={(top) => onChange({ ...wishes, top: Number.isFinite(top) ? top : 1 })}
      >
        <Label>Captions a picture</Label>
        <Group className="number-box">
          <Button slot="decrement" className="step">
            −
          </Button>
          <Input />
          <Button slot="increment" className="step">
            +
          </Button>
        </Group>
      </NumberField>
      {hasChoice && (
        <CheckboxGroup
          className="checks"
          value={wishes.models}
          onChange={(chosen) => chosen.length > 0 && onChange({ ...wishes, models: inOrder(models, chosen) })}
        >
          <Label>Captions by</Label>
          {models.models.map((own) => (
            <Check key={own.model} value={own.model} text={own.model} note={fullName(own)} />
          ))}
          {models.second_opinions.map((own) => (
            <Check key={own} value={own} text={own} note="the service passes the picture on to it" />
          ))}
        </CheckboxGroup>
      )}
    </div>
  );
}

function Check({ value, text, note }: { value: string; text: string; note: string }) {
  return (
    <Checkbox className="check" value={value}>
      <span className="check-box" aria-hidden="true" />
      <span>
        {text} <span className="quiet">{note}</span>
      </span>
    </Checkbox>
  );
}

/** The champion stays first, whatever was ticked first. */
const inOrder = ({ models, second_opinions }: Models, chosen: string[]) =>
  [...models.map((own) => own.model), ...second_opinions].filter((own) => chosen.includes(own));
