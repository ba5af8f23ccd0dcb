"use strict";

// Deletes what a button is for, after asking; says what came of it.
const base = document.body.dataset.base;
const notice = document.getElementById("notice");

function say(text) {
  notice.textContent = text;
  notice.hidden = false;
}

async function ask(question, method, path) {
  if (!confirm(question)) return;
  try {
    const answer = await fetch(base + path, { method });
    if (answer.ok) location.reload();
    else say(`${answer.status}: ${await answer.text()}`);
  } catch (error) {
    say(`the gateway did not answer: ${error.message}`);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.group) {
    ask("Delete this group and everything in it?", "DELETE", `/metrics${button.dataset.group}`);
  } else if (button.dataset.wipe) {
    ask(`Delete all ${button.dataset.wipe} groups?`, "PUT", "/api/v1/admin/wipe");
  }
});

// What was open stays open when the page is loaded again.
const key = "jobmon-open";
const open = new Set(JSON.parse(sessionStorage.getItem(key) ?? "[]"));
for (const group of document.querySelectorAll("details.group")) {
  const name = group.querySelector("button").dataset.group;
  group.open = open.has(name);
  group.addEventListener("toggle", () => {
    if (group.open) open.add(name);
    else open.delete(name);
    sessionStorage.setItem(key, JSON.stringify([...open]));
  });
}
