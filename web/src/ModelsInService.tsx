import { Button, Disclosure, DisclosurePanel, Heading } from "react-aria-components";
import type { Models, ServedModel } from "./service";
import { scoreName, time } from "./words";

const SHOWN_FIRST = ["bleu_4", "cider"];

export const fullName = ({ name, version }: { name: string; version: string | null }) => (version ? `${name} ${version}` : name);

export function ModelsInService({ models }: { models: Models }) {
  const [champion] = models.models;
  if (!champion) return null;
  return (
    <Disclosure className="models">
      <Heading level={2} className="models-heading">
        <Button slot="trigger" className="models-button">
          <span>
            In service: <span className="models-name">{fullName(champion)}</span>
          </span>
          {shortScores(champion) && <span className="models-scores">{shortScores(champion)}</span>}
          <span className="hidden">, all scores</span>
          <span className="chevron" aria-hidden="true" />
        </Button>
      </Heading>
      <DisclosurePanel>
        <div className="models-table">
          {models.models.map((own) => (
            <ModelFacts key={own.model} model={own} />
          ))}
          {models.second_opinions.length > 0 && (
            <section>
              <h3>Second opinions</h3>
              <p>{models.second_opinions.join(", ")}: captioners elsewhere, asked by this service.</p>
            </section>
          )}
        </div>
      </DisclosurePanel>
    </Disclosure>
  );
}

function ModelFacts({ model }: { model: ServedModel }) {
  const scores = Object.entries(model.scores);
  return (
    <section>
      <h3>
        {model.model}: {fullName(model)}
      </h3>
      <dl>
        <div>
          <dt>in service since</dt>
          <dd>{time(model.loaded_at)}</dd>
        </div>
        <div>
          <dt>captions by</dt>
          <dd>{model.method.replaceAll("_", " ")} search</dd>
        </div>
        {scores.map(([name, score]) => (
          <div key={name}>
            <dt>{scoreName(name)}</dt>
            <dd>{score.toFixed(3)}</dd>
          </div>
        ))}
      </dl>
      {scores.length === 0 && <p className="quiet">No scores are recorded with this model.</p>}
    </section>
  );
}

const shortScores = ({ scores }: ServedModel) =>
  SHOWN_FIRST.filter((name) => name in scores)
    .map((name) => `${scoreName(name)} ${scores[name]!.toFixed(3)}`)
    .join(", ");
