// Keyboard, response time, and no answer by the second click of a double click. The pages work without this script.
"use strict";
const GUARD_MS = 250;
const form = document.querySelector("form.answer");
const keys = new Map([...document.querySelectorAll("[data-key]")].map((each) => [each.dataset.key.toUpperCase(), each]));
const pictures = [...document.querySelectorAll(".pictures .option")];
if (pictures.length === 2) {
  keys.set("ARROWLEFT", pictures[0]).set("ARROWRIGHT", pictures[1]);
}
let shownAt = Infinity;
let isSent = false;

Promise.allSettled([...document.images].map((each) => each.decode())).then(() =>
  requestAnimationFrame(() => {
    shownAt = performance.now();
    setTimeout(() => form.classList.add("is-ready"), GUARD_MS);
  }),
);

document.addEventListener("submit", (event) => {
  const isAnswer = event.target === form;
  if (isSent || (isAnswer && !form.classList.contains("is-ready"))) {
    event.preventDefault();
    return;
  }
  isSent = true;
  // If the connection is lost, the participant can try again.
  setTimeout(() => {
    isSent = false;
  }, 3000);
  if (isAnswer) {
    form.elements.seconds.value = ((performance.now() - shownAt) / 1000).toFixed(3);
  }
});

// The message of the browser would point at a radio button that is not visible.
const legend = document.querySelector(".confidence legend");
if (legend) {
  const question = legend.textContent;
  form.addEventListener(
    "invalid",
    (event) => {
      event.preventDefault();
      legend.textContent = legend.dataset.missing;
      legend.classList.add("is-missing");
    },
    true,
  );
  form.addEventListener("change", () => {
    legend.textContent = question;
    legend.classList.remove("is-missing");
  });
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  // Digits by their position: some keyboards need the shift key for them.
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  const found = keys.get(digit ? digit[1] : event.key.toUpperCase());
  if (found) {
    event.preventDefault();
    found.click();
  }
});

// A page that the browser kept is out of date.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    location.reload();
  }
});
