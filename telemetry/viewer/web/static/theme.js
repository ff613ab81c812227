// The theme: light or dark as the system, until somebody chooses.

const KEY = "queuehop-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function current() {
  return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
}

/** Make `button` change the theme. The choice is stored in the browser. */
export function theme(button) {
  const label = () => {
    button.textContent = current() === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to the ${button.textContent.toLowerCase()} theme`);
  };
  try {
    const stored = localStorage.getItem(KEY);
    if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
  } catch {
    // The browser stores nothing: the theme is that of the system.
  }
  button.addEventListener("click", () => {
    const chosen = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // As above.
    }
    label();
  });
  dark.addEventListener("change", label);
  label();
}
