import { useCallback, useEffect, useState } from "react";
import { Tab, TabList, TabPanel, Tabs } from "react-aria-components";
import { Announcements, useAnnouncements } from "./Announcements";
import { CaptionTab } from "./CaptionTab";
import { HistoryTab } from "./HistoryTab";
import { KeyForm } from "./KeyForm";
import { ModelsInService } from "./ModelsInService";
import { Queue } from "./queue";
import { RefusalNote } from "./RefusalNote";
import { SearchTab } from "./SearchTab";
import { models as askModels, Refused, type Models, type Refusal } from "./service";
import { ThemeSwitch } from "./ThemeSwitch";

export function App() {
  const { messages, say } = useAnnouncements();
  const [queue] = useState(() => new Queue(say));
  const [models, setModels] = useState<Models | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const [place, setPlace] = usePlace();

  const ask = useCallback(async () => {
    try {
      setModels(await askModels());
      setRefusal(null);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setRefusal(error.refusal);
    }
  }, []);
  useEffect(() => void ask(), [ask]);
  useWhenSeenAgain(ask);

  const isSearchShown = models?.can_search ?? false;
  const tab = place.tab === "search" && !isSearchShown ? "caption" : place.tab;
  return (
    <>
      <a className="skip" href="#main" onClick={skipToMain}>
        Skip to the content
      </a>
      <header className="top">
        <p className="wordmark">
          <img src="icon.svg" alt="" width="28" height="28" /> captioning
        </p>
        <ThemeSwitch />
      </header>
      <main id="main" tabIndex={-1}>
        <h1>What is in the picture</h1>
        {models && <ModelsInService models={models} />}
        {refusal && <StartRefused refusal={refusal} onAgain={ask} />}
        {models && (
          <Tabs className="tabs" selectedKey={tab} onSelectionChange={(key) => setPlace({ tab: String(key), query: place.query })}>
            <TabList aria-label="Captions, search and history" className="tab-list">
              <Tab id="caption">Caption</Tab>
              {isSearchShown && <Tab id="search">Search</Tab>}
              <Tab id="history">History</Tab>
            </TabList>
            <TabPanel id="caption">
              <CaptionTab queue={queue} models={models} say={say} onKey={ask} />
            </TabPanel>
            {isSearchShown && (
              <TabPanel id="search">
                <SearchTab query={place.query} onQuery={(query) => setPlace({ tab: "search", query })} say={say} />
              </TabPanel>
            )}
            <TabPanel id="history">
              <HistoryTab say={say} />
            </TabPanel>
          </Tabs>
        )}
      </main>
      <footer>
        <p>
          Captions are written by a model and can be wrong: read them before you publish them. <a href="docs/">For programs: the HTTP interface</a>
        </p>
      </footer>
      <Announcements messages={messages} />
    </>
  );
}

function StartRefused({ refusal, onAgain }: { refusal: Refusal; onAgain: () => void }) {
  return refusal.status === 401 ? <KeyForm refusal={refusal} onKey={onAgain} /> : <RefusalNote refusal={refusal} onAgain={onAgain} />;
}

/** The address keeps its hash, which says the tab. */
function skipToMain(event: { preventDefault: () => void }) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

interface Place {
  tab: string;
  query: string;
}

/** The tab and the query, kept in the address, so that they can be linked to and gone back to. */
function usePlace(): [Place, (place: Place) => void] {
  const [place, setPlace] = useState(readPlace);
  useEffect(() => {
    const onChange = () => setPlace(readPlace());
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  const go = ({ tab, query }: Place) => {
    const hash = tab === "search" && query ? `#search?${new URLSearchParams({ q: query })}` : `#${tab}`;
    const isSameTab = tab === place.tab;
    history[isSameTab ? "replaceState" : "pushState"](null, "", hash);
    setPlace({ tab, query });
  };
  return [place, go];
}

function readPlace(): Place {
  const [tab = "", query] = location.hash.slice(1).split("?");
  return {
    tab: ["caption", "search", "history"].includes(tab) ? tab : "caption",
    query: new URLSearchParams(query).get("q") ?? "",
  };
}

/** A new champion may have come meanwhile. */
function useWhenSeenAgain(ask: () => void) {
  useEffect(() => {
    const onChange = () => document.visibilityState === "visible" && ask();
    document.addEventListener("visibilitychange", onChange);
    return () => document.removeEventListener("visibilitychange", onChange);
  }, [ask]);
}
