"use strict";
// Runs before the page is drawn, so that it never flashes. A page from disk may have no storage: then the choice lasts
// as long as the page.
(() => {
  const root = document.documentElement;
  const choices = ["system", "light", "dark"];
  let choice = "system";
  try {
    const kept = window.localStorage.getItem("tlbench-theme");
    if (choices.includes(kept)) choice = kept;
  } catch { /* no storage */ }
  const apply = () => {
    if (choice === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", choice);
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = button.querySelector("span");
    button.hidden = false;
    label.textContent = choice;
    button.addEventListener("click", () => {
      choice = choices[(choices.indexOf(choice) + 1) % choices.length];
      label.textContent = choice;
      apply();
      try { window.localStorage.setItem("tlbench-theme", choice); } catch { /* no storage */ }
    });
  });
})();
