import { useEffect, useState } from "react";
import { ToggleButton, ToggleButtonGroup } from "react-aria-components";
import { recall, remember } from "./remembered";

const KEY = "captioning-theme"; // public/theme.js reads it before the page is drawn
const THEMES = ["system", "light", "dark"] as const;
const NAMES = { system: "Auto", light: "Light", dark: "Dark" };

export function ThemeSwitch() {
  const [theme, setTheme] = useState<string>(() => recall("localStorage", KEY) ?? "system");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    remember("localStorage", KEY, theme);
  }, [theme]);
  return (
    <ToggleButtonGroup
      aria-label="Colours"
      className="switch"
      selectionMode="single"
      disallowEmptySelection
      selectedKeys={[theme]}
      onSelectionChange={(keys) => setTheme(String([...keys][0]))}
    >
      {THEMES.map((own) => (
        <ToggleButton key={own} id={own} className="switch-choice">
          {NAMES[own]}
        </ToggleButton>
      ))}
    </ToggleButtonGroup>
  );
}
