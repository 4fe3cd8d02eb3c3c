// Before the page is drawn, so that it does not flash in the other colours.
try {
  document.documentElement.dataset.theme = localStorage.getItem("captioning-theme") ?? "system";
} catch {
  // this browser keeps nothing: its own choice of colours then holds
}
