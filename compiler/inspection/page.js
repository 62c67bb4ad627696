"use strict";
// Filtering of rows, and opening the node that a link leads to. Everything else works without a script.
for (const box of document.querySelectorAll("input[type=search]")) {
  const list = document.getElementById(box.dataset.list);
  const rows = [...list.querySelectorAll(".row")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const count = document.getElementById(box.dataset.count);
  const apply = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    list.classList.toggle("filtered", words.length > 0);
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  box.addEventListener("input", apply);
  list.addEventListener("neuc:clear", () => { box.value = ""; apply(); });
}
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || target.tagName !== "DETAILS") return;
  if (target.hidden) target.parentElement.dispatchEvent(new Event("neuc:clear"));
  target.open = true;
  target.scrollIntoView({ block: "center" });
};
addEventListener("hashchange", reveal);
reveal();
