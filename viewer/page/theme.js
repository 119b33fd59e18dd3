// Automatic, light or dark. Loaded in the head, so that the first paint has the right theme.
(() => {
  const themes = ["auto", "light", "dark"];
  const root = document.documentElement;
  let theme = "auto";
  try {
    theme = localStorage.getItem("theme") ?? "auto";
  } catch {
    // A private window: as the system has it.
  }

  /** @param {string} name */
  function show(name) {
    theme = themes.includes(name) ? name : "auto";
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
  }

  show(theme);
  // The button of the top bar, which this file does not know.
  addEventListener("sentinel-theme", () => {
    show(themes[(themes.indexOf(theme) + 1) % themes.length]);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // Only for this visit.
    }
  });
})();
