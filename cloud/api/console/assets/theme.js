// Light, dark or as the system says; kept in a cookie so that the server sends the page in the right one.
export function startTheme() {
  const choice = document.getElementById("theme");
  choice?.addEventListener("change", () => {
    document.documentElement.dataset.theme = choice.value;
    document.cookie = `theme=${choice.value}; path=/; max-age=31536000; samesite=lax`;
    document.dispatchEvent(new CustomEvent("ballast:theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("ballast:theme")),
  );
}

// Returns the value of a colour token as it stands now.
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
